"""Decisions before a run starts: does it fit, where does it run, when is its turn."""
