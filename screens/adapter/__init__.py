"""The Adapter tab."""
