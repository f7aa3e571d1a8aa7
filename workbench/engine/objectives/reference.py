"""The reference that preference training compares with. Imports torch."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from peft import PeftModel


class Reference:
    """The base without the adapter, or the adapter that the run started from, as in TRL.

    Args:
        model: the PEFT model that is trained.
        start: the weights that the run started from, by name of the parameter; empty for the base.
    """

    def __init__(self, model: "PeftModel", start: Mapping[str, torch.Tensor] | None = None) -> None:
        self._model = model
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        names = dict(model.named_parameters())
        self._start = [(names[name], weights) for name, weights in (start or {}).items()]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, the model is the reference, and computes without a gradient."""
        required_grad = [parameter.requires_grad for parameter in self._trained]
        with torch.no_grad(), self._starting_weights() if self._start else self._model.disable_adapter():
            yield
        # PEFT switches gradients by its own rules when an adapter is switched on.
        for parameter, required in zip(self._trained, required_grad, strict=True):
            parameter.requires_grad_(required)

    @contextmanager
    def _starting_weights(self) -> Iterator[None]:
        # Exchanged, not copied: a parameter stays the object that the optimizer knows.
        current = [parameter.data for parameter, _ in self._start]
        for parameter, weights in self._start:
            parameter.data = weights
        try:
            yield
        finally:
            for (parameter, _), weights in zip(self._start, current, strict=True):
                parameter.data = weights


class WithoutDropout(AbstractContextManager[None]):
    """The context in which steps are computed, forward and backward: TRL switches dropout off.

    Args:
        model: the model that is trained.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules = [
            (module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p
        ]

    def __enter__(self) -> None:
        for module, _ in self._modules:
            module.p = 0.0

    def __exit__(self, *_: object) -> None:
        for module, probability in self._modules:
            module.p = probability
