"""Run folders: recipe, journal, checkpoints and label of each run, written and read back."""
