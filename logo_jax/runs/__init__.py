"""Training a config in a folder, and reading what a run has written."""
