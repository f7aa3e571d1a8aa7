"""loraworkbench from Python: ``from workbench import Recipe, estimate, open_engine, Run``.

The names are those of :mod:`workbench.api`, which is imported when one of them is used. The package is everything of
the program except its screens; it does not import Textual.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.api import Engine, Price, Recipe, Run, WorkbenchError, estimate, open_engine

__version__ = "0.1.0"
__all__ = ["Engine", "Price", "Recipe", "Run", "WorkbenchError", "__version__", "estimate", "open_engine"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The package workbench.estimate has the name of the function, and can be called as it.
    return import_module("workbench.estimate") if name == "estimate" else getattr(import_module("workbench.api"), name)
