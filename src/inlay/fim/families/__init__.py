"""One file a family; `inlay.fim.family.families` finds them."""
