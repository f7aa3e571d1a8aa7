"""Describes the adapter methods: one module a method in :mod:`workbench.adapters.methods`, found by the registry."""
