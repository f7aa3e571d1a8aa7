"""Whether this process holds only a part of the base: told by the variables that ``accelerate launch`` sets."""

import os


def is_sharded() -> bool:
    """Whether this process is one of those that hold a part of the base each (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def is_spread() -> bool:
    """Whether no process may hold all of the base: under FSDP, and DeepSpeed, whose third stage parts weights."""
    return is_sharded() or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
