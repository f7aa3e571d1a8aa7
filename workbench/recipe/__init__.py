"""The recipe, which configures a run: its settings, its YAML, presets and sweeps."""
