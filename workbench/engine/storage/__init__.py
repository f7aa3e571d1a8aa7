"""Writing on a disk that may fill up."""
