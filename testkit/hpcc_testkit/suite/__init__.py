"""How the suite itself runs: mutation rows, the distribution of tests to processes."""
