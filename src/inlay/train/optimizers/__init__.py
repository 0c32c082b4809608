"""One file a kind; `inlay.train.optimizer.optimizers` finds them."""
