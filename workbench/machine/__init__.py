"""Reads the state of this machine: GPUs, memory, hub environment, out-of-memory kills."""
