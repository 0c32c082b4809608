"""Fill-in-the-middle: one format object, span strategies, length laws, and the transform of text to examples."""
