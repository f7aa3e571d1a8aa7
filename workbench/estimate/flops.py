"""Counts the floating-point operations of a training step that the model itself needs.

The convention is that of model FLOPs utilization, MFU (Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B):

- Multiplying a token by a weight costs 2 FLOPs in the forward pass, 2 for the gradient of its input, and 2 for the
  gradient of the weight. A frozen weight has no gradient, so LoRA costs 4 FLOPs per base weight and 6 per adapter
  weight; full fine-tuning costs 6. Layers below the lowest trained one need no backward pass.
- Attention costs 12·heads·head width FLOPs per layer and pair of tokens, 4 of them forward. As in the paper, all pairs
  of a record count, although a causal mask excludes half of them; pairs outside a sliding window do not count.
- In a mixture of experts, only the experts that a token is routed to count.
- Padding tokens do not count. In the output layer only trained tokens count, as no others need it.
- Recomputation by checkpointing is not needed by the model. It is counted separately, for hardware FLOPs utilization.

Ignored, as they are small: norms, activation functions, softmax, Mamba's scan, the optimizer, and that the first
projections of the lowest trained layer need no gradient of their input.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workbench.adapters.registry import method_of
from workbench.adapters.settings import AdapterSettings
from workbench.estimate.adapter.plan import expert_shapes
from workbench.estimate.adapter.sites import Site, layer_of, sites
from workbench.estimate.adapter.targets import Targets, find_targets, frozen_names
from workbench.estimate.layer_shape import model_shape
from workbench.models.skeleton import Module, Skeleton
from workbench.recipe.sections.adapter import AdapterSection

# Model types whose configuration states a sliding window, but not that every n-th layer has none.
_EVERY_NTH_SEES_ALL = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}


@dataclass(frozen=True)
class Work:
    """FLOPs per token, and per pair of tokens of one record.

    Attributes:
        per_token: FLOPs of everything except attention between tokens.
        per_pair: (window, FLOPs) of the pairs within a sliding window of so many tokens; window 0 for no limit.
    """

    per_token: int
    per_pair: tuple[tuple[int, int], ...]

    def of(self, lengths: Sequence[int]) -> int:
        """Total FLOPs for records of these lengths, in tokens."""
        pairs = (
            flops * sum(length * (min(length, window) if window else length) for length in lengths)
            for window, flops in self.per_pair
        )
        return self.per_token * sum(lengths) + sum(pairs)


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of a step, forward and backward.

    Attributes:
        needed: what the model needs, without its output layer.
        per_trained_token: FLOPs of the output layer per trained token.
        again: what checkpointing computes a second time.
        base: the forward pass of the base without an adapter; ``base_head`` that of its output layer per trained token.
    """

    needed: Work
    per_trained_token: int
    again: Work
    base: Work
    base_head: int

    def model(self, lengths: Sequence[int], trained: int) -> int:
        """Model FLOPs for records of these lengths with ``trained`` trained tokens in total."""
        return self.needed.of(lengths) + self.per_trained_token * trained

    def hardware(self, lengths: Sequence[int], trained: int) -> int:
        """Hardware FLOPs: the same with recomputation."""
        return self.model(lengths, trained) + self.again.of(lengths)

    def with_passes(self, count: int) -> "TrainingFlops":
        """A step that also computes its tokens this many times without a gradient, as preference training does.

        A pass is counted as one of the base without the adapter.
        """
        if not count:
            return self
        pairs = (*self.needed.per_pair, *((window, count * flops) for window, flops in self.base.per_pair))
        needed = Work(self.needed.per_token + count * self.base.per_token, pairs)
        return replace(self, needed=needed, per_trained_token=self.per_trained_token + count * self.base_head)


def training_flops(skeleton: Skeleton, adapter: AdapterSection | AdapterSettings, checkpointing: bool) -> TrainingFlops:
    """Compute the FLOPs of training an adapter on a model.

    Raises:
        WorkbenchError: PEFT refuses the adapter for this model.
    """
    settings = adapter if isinstance(adapter, AdapterSettings) else AdapterSettings.of(adapter)
    layers = _Layers(skeleton)
    targets, frozen = find_targets(skeleton, settings), frozen_names(skeleton)
    lowest = 0 if settings.bias == "all" else min(map(layers.place, _trained(targets)), default=0)
    added = _added(skeleton, targets, settings)
    frozen_a = _frozen_a(skeleton, targets, settings) if settings.trains_b_only else {}
    whole = tuple(f"{site.name}." for site in targets.saved_whole)
    has_new_rows = bool(skeleton.root.facts.get("new_tokens"))
    forward = needed = head = base = base_head = 0
    pairs_forward: dict[int, int] = {}
    pairs_needed: dict[int, int] = {}
    for site in sites(skeleton):
        if layers.is_elsewhere(site) or site.name in frozen:
            continue
        needs_backward = layers.place(site) >= lowest
        own, adapted = 2 * _multiplied(skeleton, site), 2 * added.get(site.name, 0)
        # The gradient of trained rows of the output layer is computed for all of its rows.
        is_whole = f"{site.name}.".startswith(whole) or (site.name == skeleton.output and has_new_rows)
        cost = own * (1 + needs_backward + is_whole) + 3 * adapted - 2 * frozen_a.get(site.name, 0)
        if site.name == skeleton.output:
            head += cost
            base_head += own
            continue
        needed += cost
        base += own
        if layers.index(site) is not None:
            forward += own + adapted
        if (width := _attended(skeleton, site)) and (index := layers.index(site)) is not None:
            window = _window(skeleton, index)
            pairs_forward[window] = pairs_forward.get(window, 0) + 2 * width
            pairs_needed[window] = pairs_needed.get(window, 0) + 2 * width * (3 if needs_backward else 1)
    again = Work(forward, tuple(pairs_forward.items())) if checkpointing else Work(0, ())
    if settings.head:
        # The output layer is not called, and a head reads one token of each text.
        head = base_head = 0
    alone = Work(base, tuple(pairs_forward.items()))
    return TrainingFlops(Work(needed, tuple(pairs_needed.items())), head, again, alone, base_head)


class _Layers:
    """Finds the position of a module in the stack of layers."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._stack = f"{model_shape(skeleton).path}."
        self._depth = model_shape(skeleton).depth
        self._output = skeleton.output

    def index(self, site: Site) -> int | None:
        """The index of the layer that contains the module; None for a module outside the stack."""
        if not site.path.startswith(f"{self._stack}*"):
            return None
        return int(site.name.removeprefix(self._stack).partition(".")[0])

    def is_elsewhere(self, site: Site) -> bool:
        """Whether the module belongs to another stack, such as a vision encoder."""
        return "*" in site.path and self.index(site) is None

    def place(self, site: Site) -> int:
        """The module's position in the forward pass: 0 for embeddings, then the layers, last the output layer."""
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


def _added(skeleton: Skeleton, targets: Targets, settings: AdapterSettings) -> dict[str, int]:
    """Weights of the adapter that a token is multiplied by, by the name of the adapted module."""
    found: dict[str, int] = {}
    method = method_of(settings.method)
    for target in targets.modules:
        multiplied = method.multiplied(layer_of(target.site, skeleton), target.r, settings)
        for site in target.sites:
            found[site.name] = multiplied
    for wrapped in targets.parameters:
        size = sum(math.prod(shape) for shape in expert_shapes(wrapped))
        if len(wrapped.tensor.shape) == 3:
            size = size * _experts_a_token(skeleton) // wrapped.tensor.shape[0]
        for site in wrapped.sites:
            found[site.name] = found.get(site.name, 0) + size
    return found


def _frozen_a(skeleton: Skeleton, targets: Targets, settings: AdapterSettings) -> dict[str, int]:
    """Weights of A, which have no gradient where B alone is trained, by the name of the adapted module."""
    found: dict[str, int] = {}
    method = method_of(settings.method)
    for target in targets.modules:
        tensors = method.tensors(layer_of(target.site, skeleton), target.r, settings)
        size = sum(tensor.size for tensor in tensors if tensor.name == "lora_A.weight")
        found |= dict.fromkeys([site.name for site in target.sites], size)
    return found


def _multiplied(skeleton: Skeleton, site: Site) -> int:
    """The module's own weights that a token is multiplied by."""
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
    """Width of all keys plus width of all values in an attention module, over all heads; 0 for other modules."""
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
    """(in, out) features of each linear layer directly in a module."""
    weights = [
        (child.kind, next(tensor.shape for tensor in child.tensors if tensor.name == "weight"))
        for child in module.children
        if child.kind in ("linear", "conv1d")
    ]
    return [(shape[0], shape[1]) if kind == "conv1d" else (shape[1], shape[0]) for kind, shape in weights]


def _window(skeleton: Skeleton, layer: int) -> int:
    """The sliding window of a layer in tokens; 0 for full attention."""
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
