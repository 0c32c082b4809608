"""One file a callback; `inlay.train.callback.callbacks` finds them."""
