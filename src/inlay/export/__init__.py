"""Exports a run to other formats (Hugging Face, GGUF) and proves that the copy computes the same."""
