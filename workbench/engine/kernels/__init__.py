"""Replacements for parts of a model's computation, on one model at a time."""
