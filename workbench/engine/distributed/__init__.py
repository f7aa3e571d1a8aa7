"""Runs in several processes, started by ``accelerate launch``."""
