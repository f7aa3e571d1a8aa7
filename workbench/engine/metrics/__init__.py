"""Measures a run: the time of its steps, its memory; and logs metrics to trackers such as TensorBoard and W&B."""
