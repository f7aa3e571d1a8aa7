"""Trains a run in several processes, which ``accelerate launch`` starts."""
