"""One file a kind; `inlay.train.search.searches` finds them."""
