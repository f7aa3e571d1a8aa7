"""The adapter by shape: its modules, parameters and bytes. Exact."""
