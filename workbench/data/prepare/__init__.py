"""Writes what would be fed to training as a cleaned file of records: duplicates, overlap and long records removed."""
