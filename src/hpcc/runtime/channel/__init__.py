"""The guest's Exec stream: one call, the warden that parses it, the checked replies."""
