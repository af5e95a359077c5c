"""Self-supervised learning from local and global crops (LoGo) in JAX."""

__version__ = "0.1.0"
