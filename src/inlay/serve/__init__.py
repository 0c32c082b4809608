"""The HTTP server for editors: one module per dialect, and the playground page."""
