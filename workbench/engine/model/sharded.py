"""Tells whether the base is split over processes, from the environment variables that ``accelerate launch`` sets."""

import os


def is_sharded() -> bool:
    """Whether each process holds only a part of the base (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def is_spread() -> bool:
    """Whether a process may lack parts of the base: under FSDP, and DeepSpeed, whose stage 3 partitions weights."""
    return is_sharded() or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
