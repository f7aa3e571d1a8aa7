"""The one configuration of a run: its fields, its text, its presets."""
