"""Image data sets: preparing, reading, decoding and batching."""
