"""Backbones in the file formats of other libraries, and as compiled code."""
