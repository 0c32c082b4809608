"""One file a kind; `inlay.model.mlp.mlps` finds them."""
