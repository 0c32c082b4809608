"""Small-model experiments that check what the literature says about fill-in-the-middle; see README.md."""
