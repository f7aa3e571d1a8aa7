"""The queue, and what is asked before a run starts or is queued."""
