"""Turns records into tokens and labels: encoding, chunks and packing, and the files that keep the tokens."""
