"""Order and packing plans, the transform to rows, and the loader whose whole state is two counters."""
