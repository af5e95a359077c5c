"""Backbones in other libraries' files, and as compiled code that needs no library."""
