"""Where a tokenizer comes from: one file per kind."""
