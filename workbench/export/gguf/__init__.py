"""Writes merged models as GGUF files."""
