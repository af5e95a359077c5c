"""Metrics and progress of a run: files, TensorBoard, W&B, terminal."""
