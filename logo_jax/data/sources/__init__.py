"""Image sources, one module per storage format."""
