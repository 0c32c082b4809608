"""One file a strategy; `inlay.fim.span.strategies` finds them."""
