"""Evaluates runs against their base: held-out metrics with intervals, replies side by side, and the report."""
