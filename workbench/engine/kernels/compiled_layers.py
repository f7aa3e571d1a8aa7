"""Compiles each decoder layer of a model with ``torch.compile``, and uses the compiled code only during training steps.

Only the forward of a layer is compiled. One compilation serves all layers of a class, activation checkpointing stays
outside the compiled code, and no module is wrapped, so module names and replies are unchanged.
``accelerate.utils.compile_regions`` would wrap each layer in another module, which PEFT then saves under other names.

Random numbers are drawn as without compilation (``fallback_random``), so dropout is the same and a loss differs by
rounding only. An exported script contains this text: nothing of the project is imported.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class CompiledLayers:
    """The decoder layers of one model with compiled forwards, which :meth:`active` switches on.

    A layer is compiled when it is first called within :meth:`active`. Only one instance per process can be in use.

    Args:
        cache: folder for the compiled code, so that the next process starts faster. PyTorch's default is a shared
            folder in the machine's temporary directory, which other users may have created.
        uncompiled_attention: transformers' names of attention functions that depend on tensor values and so cannot be
            compiled.

    Attributes:
        is_strict: raise when something cannot be compiled; otherwise it runs uncompiled.

    Raises:
        NotImplementedError: the model has no layers that can be compiled separately.
    """

    is_strict = True

    def __init__(self, model: PreTrainedModel, cache: Path, uncompiled_attention: Sequence[str] = ()) -> None:
        # bitsandbytes makes PyTorch set its default folder on import.
        if os.environ.get("TORCHINDUCTOR_CACHE_DIR") in (None, default_cache_dir()):
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
        # Code compiled for an earlier model counts against the limit on variants per function.
        torch.compiler.reset()
        self._compiled: dict[type, Callable[..., torch.Tensor]] = {}
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        # A layer with a forward of its own was placed on a device by accelerate, or patched by somebody else.
        self._forwards = [(layer, self._compiled_forward(layer)) for layer in layers if "forward" not in layer.__dict__]
        if not self._forwards:
            raise NotImplementedError("this architecture has no standard transformers decoder layers")
        self._uncompiled = {
            name: torch.compiler.disable(ALL_ATTENTION_FUNCTIONS[name]) for name in uncompiled_attention
        }

    def _compiled_forward(self, layer: GradientCheckpointingLayer) -> Callable[..., torch.Tensor]:
        layer_class = type(layer)
        if layer_class not in self._compiled:
            # The function below transformers' checkpointing wrapper.
            self._compiled[layer_class] = torch.compile(
                layer_class.forward.__wrapped__, dynamic=True, options={"fallback_random": True}
            )
        compiled = self._compiled[layer_class]

        def forward(*args: object, **kwargs: object) -> torch.Tensor:
            if layer.gradient_checkpointing and layer.training:
                return layer._gradient_checkpointing_func(partial(compiled, layer, **kwargs), *args)
            return compiled(layer, *args, **kwargs)

        return forward

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, the layers run their compiled forwards."""
        before = {name: ALL_ATTENTION_FUNCTIONS[name] for name in self._uncompiled}
        for name, function in self._uncompiled.items():
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
