"""What a recipe costs on a model, before a GPU second is spent: :func:`price`. Needs no torch and no GPU."""

from workbench.estimate.price import Price, price
from workbench.estimate.pricing import Tracer
from workbench.estimate.setup import Setup
from workbench.estimate.trace.store import TraceStore

__all__ = ["Price", "Setup", "TraceStore", "Tracer", "price"]
