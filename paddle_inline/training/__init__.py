"""Training and evaluation: schedules, losses, optimizers, checkpoints and the loop itself."""
