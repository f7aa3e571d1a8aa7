"""Batches of responses that are compared or labeled good or bad, and the reference that they are compared with."""
