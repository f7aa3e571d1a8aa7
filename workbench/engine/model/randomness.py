"""Saves and restores the states of the random number generators. Imports torch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class RandomState:
    """States of the random number generators. Not written to disk; ``cuda`` is the current GPU's, None without one."""

    python: tuple[Any, ...]
    numpy: dict[str, Any] | tuple[Any, ...]
    cpu: torch.Tensor
    cuda: torch.Tensor | None


def random_state() -> RandomState:
    """The current states of all generators."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return RandomState(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)


def set_random_state(state: RandomState) -> None:
    """Restore the states of all generators."""
    random.setstate(state.python)
    np.random.set_state(state.numpy)
    torch.set_rng_state(state.cpu)
    if state.cuda is not None:
        torch.cuda.set_rng_state(state.cuda)


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the states of all generators on exit."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
