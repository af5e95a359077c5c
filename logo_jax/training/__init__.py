"""The training loop, the compiled step, optimizers, checkpoints and logs."""
