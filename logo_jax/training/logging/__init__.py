"""Logging of metrics and progress: files, TensorBoard, W&B and the terminal."""
