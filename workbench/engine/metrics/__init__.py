"""Measures a run: the time of its steps, its memory; and logs metrics to TensorBoard, W&B and trackio."""
