"""The training loop: loss, optimizers, schedules, callbacks, checkpoints, resumption."""
