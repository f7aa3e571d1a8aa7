"""What went wrong, in plain words: causes and fixes."""
