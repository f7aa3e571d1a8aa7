"""Serves a base and adapters on it over an OpenAI-compatible API; transformers does the continuous batching."""
