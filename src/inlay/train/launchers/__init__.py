"""One file a kind; `inlay.train.launcher.launchers` finds them."""
