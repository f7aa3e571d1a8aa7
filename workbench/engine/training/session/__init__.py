"""One stretch of a run under a trainer: what is set up for it, and what happens between its steps."""
