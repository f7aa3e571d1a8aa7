"""Replies and evaluations of the model in memory."""
