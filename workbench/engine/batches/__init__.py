"""How records are put together into micro-batches, and cut up when memory runs out."""
