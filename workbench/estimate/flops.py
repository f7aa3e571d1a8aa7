"""Floating-point operations of a training step: what the model needs, whatever is done beside it.

The convention is that of model FLOPs utilisation, MFU (Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B):

- A weight that a token is multiplied by costs 2 FLOPs forward, 2 for the gradient by its input and 2 for the gradient
  by itself. A frozen weight has no gradient by itself, so LoRA costs 4 a weight of the base and 6 one of the adapter,
  where full fine-tuning costs 6. Layers below the lowest trained one need no backward at all.
- Attention costs 12·heads·head width a pair of tokens and layer, 4 of them forward. As in the paper, all pairs of a
  record count, although a causal mask leaves half of them out; those outside a sliding window do not.
- Of a mixture of experts, those count that a token is sent to.
- Tokens that are padding count nothing, and the output layer counts the tokens that are trained: no other needs it.
- What checkpointing computes again is not needed by the model. It is counted apart, for hardware FLOPs utilisation.

Left out, and small: norms, activation functions, the softmax, Mamba's scan, the optimizer, and that the first
projections of the lowest trained layer need no gradient by their input.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.estimate.adapter.plan import expert_shapes, lora_shapes
from workbench.estimate.adapter.settings import LoraSettings
from workbench.estimate.adapter.sites import Site, sites
from workbench.estimate.adapter.targets import Targets, find_targets
from workbench.estimate.layer_shape import model_shape
from workbench.models.skeleton import Module, Skeleton
from workbench.recipe.schema import AdapterSection

# Configurations that say how wide a window is, but not that only the layers between every n-th one have it.
_EVERY_NTH_SEES_ALL = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}


@dataclass(frozen=True)
class Work:
    """FLOPs as a sum over tokens, and over pairs of tokens of one record.

    Attributes:
        per_token: of all that a token passes through by itself.
        per_pair: by the width of the window that a pair must lie in; 0 for none.
    """

    per_token: int
    per_pair: tuple[tuple[int, int], ...]

    def of(self, lengths: Sequence[int]) -> int:
        """For records of these lengths."""
        pairs = (
            flops * sum(length * (min(length, window) if window else length) for length in lengths)
            for window, flops in self.per_pair
        )
        return self.per_token * sum(lengths) + sum(pairs)


@dataclass(frozen=True)
class TrainingFlops:
    """What a step costs, forward and backward.

    Attributes:
        needed: by the model without its output layer.
        per_trained_token: by the output layer.
        again: what is computed a second time.
    """

    needed: Work
    per_trained_token: int
    again: Work

    def model(self, lengths: Sequence[int], trained: int) -> int:
        """What the model needs for records of these lengths, in which so many tokens are trained."""
        return self.needed.of(lengths) + self.per_trained_token * trained

    def hardware(self, lengths: Sequence[int], trained: int) -> int:
        """The same with what is computed again."""
        return self.model(lengths, trained) + self.again.of(lengths)


def training_flops(skeleton: Skeleton, adapter: AdapterSection | LoraSettings, checkpointing: bool) -> TrainingFlops:
    """What training this adapter on this model costs.

    Raises:
        WorkbenchError: PEFT refuses the adapter for this model.
    """
    settings = adapter if isinstance(adapter, LoraSettings) else LoraSettings.of(adapter)
    layers = _Layers(skeleton)
    targets = find_targets(skeleton, settings)
    lowest = 0 if settings.bias == "all" else min(map(layers.place, _trained(targets)), default=0)
    added = _added(skeleton, targets)
    whole = tuple(f"{site.name}." for site in targets.saved_whole)
    forward = needed = head = 0
    pairs_forward: dict[int, int] = {}
    pairs_needed: dict[int, int] = {}
    for site in sites(skeleton):
        if layers.is_elsewhere(site):
            continue
        needs_backward = layers.place(site) >= lowest
        own, adapted = 2 * _multiplied(skeleton, site), 2 * added.get(site.name, 0)
        is_whole = f"{site.name}.".startswith(whole)
        cost = own * (1 + needs_backward + is_whole) + 3 * adapted
        if site.name == skeleton.output:
            head += cost
            continue
        needed += cost
        if layers.index(site) is not None:
            forward += own + adapted
        if (width := _attended(skeleton, site)) and (index := layers.index(site)) is not None:
            window = _window(skeleton, index)
            pairs_forward[window] = pairs_forward.get(window, 0) + 2 * width
            pairs_needed[window] = pairs_needed.get(window, 0) + 2 * width * (3 if needs_backward else 1)
    again = Work(forward, tuple(pairs_forward.items())) if checkpointing else Work(0, ())
    return TrainingFlops(Work(needed, tuple(pairs_needed.items())), head, again)


class _Layers:
    """Where in the stack of layers a module lies."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._stack = f"{model_shape(skeleton).path}."
        self._depth = model_shape(skeleton).depth
        self._output = skeleton.output

    def index(self, site: Site) -> int | None:
        """Number of the layer that the module is a part of; None for one beside the stack."""
        if not site.path.startswith(f"{self._stack}*"):
            return None
        return int(site.name.removeprefix(self._stack).partition(".")[0])

    def is_elsewhere(self, site: Site) -> bool:
        """Whether it is a part of another list, such as the layers that look at pictures."""
        return "*" in site.path and self.index(site) is None

    def place(self, site: Site) -> int:
        """The larger, the later the gradient is through with it: embeddings, layers, output."""
        index = self.index(site)
        if index is not None:
            return index + 1
        return self._depth + 1 if site.name == self._output else 0


def _trained(targets: Targets) -> Iterator[Site]:
    for target in targets.modules:
        yield from target.sites
    for wrapped in targets.parameters:
        yield from wrapped.sites
    yield from targets.saved_whole


def _added(skeleton: Skeleton, targets: Targets) -> dict[str, int]:
    """Weights of A and B that a token is multiplied by, by the name of the module they are on."""
    found: dict[str, int] = {}
    for target in targets.modules:
        a_shape, b_shape = lora_shapes(target.site, target.r)
        # A token looks its row of an embedding's A up.
        looked_up = target.site.kind == "embedding"
        for site in target.sites:
            found[site.name] = math.prod(b_shape) + (0 if looked_up else math.prod(a_shape))
    for wrapped in targets.parameters:
        size = sum(math.prod(shape) for shape in expert_shapes(wrapped))
        if len(wrapped.tensor.shape) == 3:
            size = size * _experts_a_token(skeleton) // wrapped.tensor.shape[0]
        for site in wrapped.sites:
            found[site.name] = found.get(site.name, 0) + size
    return found


def _multiplied(skeleton: Skeleton, site: Site) -> int:
    """Weights of a module's own that a token is multiplied by."""
    if site.kind in ("linear", "conv1d", "convolution"):
        weight = site.parameter("weight")
        return weight.size if weight else 0
    if site.kind == "embedding":
        return 0
    # Fused experts, and the routers that choose among them.
    experts = sum(tensor.size // tensor.shape[0] for tensor in site.parameters if len(tensor.shape) == 3)
    router = sum(tensor.size for tensor in site.parameters if len(tensor.shape) == 2 and tensor.name == "weight")
    return experts * _experts_a_token(skeleton) + router


def _experts_a_token(skeleton: Skeleton) -> int:
    return int(skeleton.root.facts.get("experts_per_token") or 1)


def _attended(skeleton: Skeleton, site: Site) -> int:
    """Width of all heads of an attention module, of their keys and of their values together; 0 for any other."""
    if "Attention" not in site.module.class_name:
        return 0
    hidden = skeleton.root.facts.get("hidden_size")
    back = next((extent for extent in reversed(_extents(site.module)) if extent[1] == hidden), None)
    if back is None:
        return 0
    config = _text_config(skeleton)
    # Multi-head latent attention: keys are wider than values.
    key_width = (config.get("qk_nope_head_dim") or 0) + (config.get("qk_rope_head_dim") or 0)
    return back[0] + (key_width * int(skeleton.root.facts.get("heads") or 0) or back[0])


def _extents(module: Module) -> list[tuple[int, int]]:
    """What goes into each linear layer of a module and what comes out."""
    weights = [
        (child.kind, next(tensor.shape for tensor in child.tensors if tensor.name == "weight"))
        for child in module.children
        if child.kind in ("linear", "conv1d")
    ]
    return [(shape[0], shape[1]) if kind == "conv1d" else (shape[1], shape[0]) for kind, shape in weights]


def _window(skeleton: Skeleton, layer: int) -> int:
    """Tokens that a layer looks back at; 0 for one without a limit."""
    config = _text_config(skeleton)
    window = config.get("sliding_window")
    if not isinstance(window, int) or config.get("use_sliding_window") is False:
        return 0
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and layer < len(kinds):
        return window if kinds[layer] == "sliding_attention" else 0
    nth = config.get("sliding_window_pattern") or _EVERY_NTH_SEES_ALL.get(skeleton.model_type)
    return 0 if nth and (layer + 1) % nth == 0 else window


def _text_config(skeleton: Skeleton) -> dict[str, Any]:
    nested = skeleton.config.get("text_config")
    return nested if isinstance(nested, dict) else skeleton.config
