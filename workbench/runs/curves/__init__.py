"""The curves of a run: all points for comparison, or any number of them in constant memory."""
