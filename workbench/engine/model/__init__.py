"""The base model in memory, and the adapters on it."""
