"""Replaces parts of a model's computation by faster ones: attention, loss head, fused kernels, compiled layers."""
