"""Whether a run made its model better: held-out figures with intervals, replies side by side, and the report."""
