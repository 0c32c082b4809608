"""Judging a model: tasks, metrics that first score their own gold answers, and the report."""
