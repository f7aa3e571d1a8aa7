"""Counts micro-batches, finds the fullest one, and splits them when memory runs out."""
