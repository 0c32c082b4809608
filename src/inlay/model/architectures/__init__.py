"""One file an architecture of transformers; `inlay.model.architecture.architectures` finds them."""
