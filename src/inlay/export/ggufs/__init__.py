"""llama.cpp architectures: one file each."""
