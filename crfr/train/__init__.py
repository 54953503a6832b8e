"""Stage 4, loss -> checkpoint: the jitted update, the one loop, checkpoints and logs."""
