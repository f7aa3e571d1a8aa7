"""The generators of random numbers: their state, and work that leaves it alone. Imports torch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def randomness() -> dict[str, Any]:
    """Where the generators of Python, numpy, torch and the present GPU stand."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_randomness(state: dict[str, Any]) -> None:
    """Put the generators where they stood."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def unmoved_randomness() -> Iterator[None]:
    """Within, random numbers may be drawn; afterwards the generators stand where they stood."""
    before = randomness()
    try:
        yield
    finally:
        set_randomness(before)
