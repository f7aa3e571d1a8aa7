"""Passes the user's requests (pause, stop, new learning rate, …) to a live run, in one process or in several."""
