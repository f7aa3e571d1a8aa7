"""Exports a run: as adapter, merged weights, GGUF file or script, to the hub, or as another tool's configuration."""
