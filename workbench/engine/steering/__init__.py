"""What a user asks of a live run, in one process or in several."""
