"""What a recipe costs on a model, before a GPU second is spent: :func:`price`. Needs no torch and no GPU.

The package itself can be called as :func:`workbench.api.estimate`, for ``from workbench import estimate``.
"""

import sys
from importlib import import_module
from types import ModuleType

from workbench.estimate.price import Price, price
from workbench.estimate.pricing import Tracer
from workbench.estimate.setup import Setup
from workbench.estimate.trace.store import TraceStore

__all__ = ["Price", "Setup", "TraceStore", "Tracer", "price"]


class _Callable(ModuleType):
    """A package that is also the function of its name: either is found first, whatever was imported before."""

    def __call__(self, *arguments: object, **named: object) -> object:
        """Price a recipe; see :func:`workbench.api.estimate`."""
        return import_module("workbench.api").estimate(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
