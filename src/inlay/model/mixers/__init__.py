"""One file a mixer; `inlay.model.mixer.mixers` finds them."""
