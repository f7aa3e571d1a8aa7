"""Readers of rows from local files and hub datasets."""
