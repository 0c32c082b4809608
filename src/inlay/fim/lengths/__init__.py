"""One file a law; `inlay.fim.length.lengths` finds them."""
