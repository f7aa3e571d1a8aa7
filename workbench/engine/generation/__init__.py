"""Replies, sampled replies and evaluations, computed with the model in memory."""
