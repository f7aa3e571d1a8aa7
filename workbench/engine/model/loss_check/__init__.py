"""Checks, before a run, that a fast way to compute its loss gives the loss of the model itself."""
