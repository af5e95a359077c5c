"""Training loop, compiled step, optimizers, checkpoints and logging."""
