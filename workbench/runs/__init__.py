"""What remains of a run on disk, and how it is read back."""
