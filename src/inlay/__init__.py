"""inlay: train, judge and serve small fill-in-the-middle code models."""

__version__ = "0.1.0"
