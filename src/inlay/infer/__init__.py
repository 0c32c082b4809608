"""Inference: open a run's weights, generate with a K/V cache, complete code at a cursor."""
