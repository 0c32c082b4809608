"""inlay: train and judge small fill-in-the-middle code models, and complete with them."""

__version__ = "0.1.0"
