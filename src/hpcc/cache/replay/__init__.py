"""A request seen before: its plan, the native engine and its Python twin."""
