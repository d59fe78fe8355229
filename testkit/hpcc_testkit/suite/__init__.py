"""How the suite itself runs: mutation rows, the deal to processes."""
