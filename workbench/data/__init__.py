"""Training data: reads records, applies the chat template, tokenizes, and computes statistics."""
