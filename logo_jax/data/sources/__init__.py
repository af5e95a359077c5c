"""Image sources, one module per kind."""
