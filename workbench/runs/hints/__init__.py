"""Hints about a run while it trains; none of them stops it."""
