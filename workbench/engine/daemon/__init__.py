"""The engine process: its API, its state, its queue."""
