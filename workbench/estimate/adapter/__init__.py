"""Computes the modules, parameters and bytes of a LoRA adapter exactly, from the model's module tree."""
