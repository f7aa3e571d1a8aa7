"""Ways to compute a model's layers in less memory, which a run uses and a traced step follows. Imports torch."""
