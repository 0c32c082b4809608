"""Documents to token store: sources, filters, duplicate removal, split, tokenizer, store. Never imports torch."""
