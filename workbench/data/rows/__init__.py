"""Rows out of files and hub data sets, one after the other."""
