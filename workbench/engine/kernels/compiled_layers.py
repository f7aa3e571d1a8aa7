"""The layers of a model compiled by ``torch.compile``, for as long as a training step lasts.

Each layer's own computation is compiled and nothing around it: one compilation serves all layers of a kind, activations
are recomputed around it as before, and no module is wrapped, so that names stay and replies are as they were.
``accelerate.utils.compile_regions`` would put another module around each layer, which PEFT then saves by other names.

Random numbers are drawn as without it (``fallback_random``), so dropout is the same and a loss differs by rounding.
An exported script carries this text along: nothing of the project is imported.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class CompiledLayers:
    """Compiled when they are first called within :meth:`at_work`; one of them at a time, in a process.

    Args:
        kept: folder where code is kept, so that the next process compiles in part of the time. PyTorch's usual place
            is a folder of the machine's, which on a shared one others may have made before.
        as_usual: attention functions, by transformers' names, that look at values and cannot be compiled.

    Attributes:
        is_strict: raise when something cannot be compiled; else it is computed as usual.

    Raises:
        NotImplementedError: the model has no layers that could be compiled by themselves.
    """

    is_strict = True

    def __init__(self, model: Any, kept: Path, as_usual: Sequence[str] = ()) -> None:
        # bitsandbytes makes PyTorch choose its usual place before anybody is asked.
        if os.environ.get("TORCHINDUCTOR_CACHE_DIR") in (None, default_cache_dir()):
            kept.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(kept)
        # What was compiled for a model before counts against the number of variants that a function may have.
        torch.compiler.reset()
        self._compiled: dict[type, Callable[..., Any]] = {}
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        # One that has a forward of its own is on a device of its own, or somebody else's.
        self._forwards = [(layer, self._forward_of(layer)) for layer in layers if "forward" not in layer.__dict__]
        if not self._forwards:
            raise NotImplementedError("this architecture has no standard transformers decoder layers")
        self._as_usual = {name: torch.compiler.disable(ALL_ATTENTION_FUNCTIONS[name]) for name in as_usual}

    def _forward_of(self, layer: Any) -> Callable[..., Any]:
        kind = type(layer)
        if kind not in self._compiled:
            # What transformers wraps with its checkpointing.
            self._compiled[kind] = torch.compile(
                kind.forward.__wrapped__, dynamic=True, options={"fallback_random": True}
            )
        compiled = self._compiled[kind]

        def forward(*arguments: Any, **options: Any) -> Any:
            if layer.gradient_checkpointing and layer.training:
                return layer._gradient_checkpointing_func(partial(compiled, layer, **options), *arguments)
            return compiled(layer, *arguments, **options)

        return forward

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within, the layers compute by compiled code."""
        before = {name: ALL_ATTENTION_FUNCTIONS[name] for name in self._as_usual}
        for name, function in self._as_usual.items():
            ALL_ATTENTION_FUNCTIONS.register(name, function)
        for layer, forward in self._forwards:
            layer.__dict__["forward"] = forward
        try:
            with torch._dynamo.config.patch(suppress_errors=not self.is_strict):
                yield
        finally:
            for name, function in before.items():
                ALL_ATTENTION_FUNCTIONS.register(name, function)
            for layer, _ in self._forwards:
                del layer.__dict__["forward"]
