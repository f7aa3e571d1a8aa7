"""Plans an adapter for a model: exact shapes, parameter counts and file size.

The plan equals what ``peft.get_peft_model`` attaches and ``save_pretrained`` writes, but needs neither.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from workbench.adapters.layer import AdapterTensor
from workbench.adapters.registry import method_of
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.left_out import LeftOut, fused_experts_left_out, in_frozen_parts, left_out_text
from workbench.estimate.adapter.new_rows import new_row_tensors
from workbench.estimate.adapter.safetensors_size import SavedTensors, safetensors_bytes
from workbench.estimate.adapter.sites import Site, layer_of, sites
from workbench.estimate.adapter.targets import ModuleTarget, ParameterTarget, Targets, find_targets
from workbench.models.skeleton import Module, Skeleton
from workbench.recipe.sections.adapter import AdapterSection

_PREFIX = "base_model.model."
_Named = tuple[tuple[str, ...], AdapterTensor]
"""A tensor of an adapter, with its full names in the file."""


@dataclass(frozen=True)
class AdapterDtypes:
    """Data types of the trained tensors and of the base.

    Attributes:
        adapter: of A, B and trained biases.
        saved_whole: of the copies in ``modules_to_save``.
        base: of the frozen weights.
    """

    adapter: str = "bfloat16"
    saved_whole: str = "bfloat16"
    base: str = "bfloat16"


@dataclass(frozen=True)
class AdaptedModule:
    """The adapter's tensors in ``count`` equal modules.

    Attributes:
        name: full name, with the layers as a range: ``model.layers.0–27.self_attn.q_proj``.
        path: the same with ``*`` for the layers, as in the folded module tree.
        kind: kind of the base layer; ``parameter`` for fused experts and routers.
        tensors: what the adapter adds to one of the modules.
    """

    name: str
    path: str
    kind: str
    r: int
    tensors: tuple[AdapterTensor, ...]
    count: int

    @property
    def parameters(self) -> int:
        """Trained parameters in one of the modules."""
        return sum(tensor.size for tensor in self.tensors if tensor.is_trained)

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "kind": self.kind,
            "r": self.r,
            "tensors": {tensor.name: list(tensor.shape) for tensor in self.tensors},
            "parameters": self.parameters,
            "count": self.count,
        }


@dataclass(frozen=True)
class AdapterPlan:
    """The exact counts and sizes of an adapter that is not built yet.

    Attributes:
        trainable_parameters: all that the optimizer updates: A, B, magnitudes, biases and ``modules_to_save``.
        total_parameters: base and adapter; a weight packed to 4 bits counts with all its elements.
        file_bytes: size of ``adapter_model.safetensors``.
        trained_bytes: size in memory of the trained tensors.
        added_bytes: size in memory of the tensors that the adapter adds to the base; trained biases are the base's.
        kept_bytes: size in memory of what the method keeps during a run, beside the optimizer's state.
        dtype: data type of A and B.
        saved_whole: full names of the modules in ``modules_to_save``.
        unmatched: the target names that match no module, if others do.
        left_out: which matching layers get no adapter, by the part that they are in (``vision``, …), and how many.
        experts_left_out: parameters of experts stored as one weight, where ``all-linear`` does not reach them.
        builds_weight: a step builds ΔW, or the changed weight, of each adapted layer.
        dropout: the adapter's dropout; 0 where experts are stored as one weight and none was set.
    """

    trainable_parameters: int
    total_parameters: int
    file_bytes: int
    trained_bytes: int
    added_bytes: int
    dtype: str
    modules: tuple[AdaptedModule, ...]
    saved_whole: tuple[str, ...]
    unmatched: tuple[str, ...]
    left_out: LeftOut = ()
    experts_left_out: int = 0
    dropout: float = 0.0
    builds_weight: bool = False
    kept_bytes: int = 0

    @property
    def left_out_text(self) -> str:
        """What gets no adapter although the targets name it, and why, in sentences; empty if nothing is left out."""
        return left_out_text(self.left_out, self.experts_left_out, self.total_parameters)

    @property
    def unmatched_text(self) -> str:
        """The target names that match no layer, in a sentence; empty if all do."""
        return f"adapter.target_modules: no layer is called {' or '.join(self.unmatched)}." if self.unmatched else ""

    @property
    def trainable_percent(self) -> float:
        return 100 * self.trainable_parameters / self.total_parameters

    def as_json(self) -> dict[str, object]:
        return {
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "trainable_percent": self.trainable_percent,
            "file_bytes": self.file_bytes,
            "dtype": self.dtype,
            "modules": [module.as_json() for module in self.modules],
            "left_out": dict(self.left_out),
            "experts_left_out": self.experts_left_out,
        }


def plan_adapter(
    skeleton: Skeleton, adapter: AdapterSection | AdapterSettings, dtypes: AdapterDtypes | None = None
) -> AdapterPlan:
    """Plan the adapter that PEFT creates from these settings on this model.

    Raises:
        WorkbenchError: PEFT refuses the settings for this model, or they match nothing.
    """
    dtypes = dtypes or AdapterDtypes()
    settings = adapter if isinstance(adapter, AdapterSettings) else AdapterSettings.of(adapter)
    targets = find_targets(skeleton, settings)
    modules = tuple(_adapted_modules(skeleton, targets, settings))
    of_method = [*_module_tensors(modules, targets), *_shared_tensors(skeleton, targets, settings)]
    added = [_saved(tensor, names, dtypes.adapter) for names, tensor in of_method]
    trained = [_saved(tensor, names, dtypes.adapter) for names, tensor in of_method if tensor.is_trained]
    saved = [_saved(tensor, names, dtypes.adapter) for names, tensor in of_method if tensor.is_saved]
    also = [
        *_parameter_tensors(targets, dtypes),
        *_saved_modules(targets, dtypes),
        *new_row_tensors(skeleton, settings, targets, dtypes.adapter),
        *_head(skeleton, settings, dtypes),
    ]
    biases = list(_trained_biases(skeleton, targets, settings, dtypes))
    embeddings = list(_base_embeddings(skeleton, targets, dtypes))
    added_parameters = sum(tensors.parameters for tensors in (*trained, *also))
    untrained = sum(tensor.size * len(names) for names, tensor in of_method if tensor.is_parameter)
    return AdapterPlan(
        trainable_parameters=added_parameters + sum(tensors.parameters for tensors in biases),
        total_parameters=skeleton.parameters + added_parameters + untrained,
        file_bytes=safetensors_bytes([*saved, *also, *biases, *embeddings], {"format": "pt"}),
        trained_bytes=sum(tensors.bytes for tensors in (*trained, *also, *biases)),
        added_bytes=sum(tensors.bytes for tensors in (*added, *also)),
        dtype=dtypes.adapter,
        modules=modules,
        saved_whole=tuple(site.name for site in targets.saved_whole),
        unmatched=targets.unmatched,
        left_out=in_frozen_parts(skeleton, targets),
        experts_left_out=fused_experts_left_out(skeleton, targets, settings),
        builds_weight=method_of(settings.method).builds_weight,
        kept_bytes=method_of(settings.method).kept_copies * sum(tensors.bytes for tensors in trained),
        dropout=0.0 if targets.parameters and settings.dropout_is_default else settings.lora_dropout,
    )


def expert_shapes(target: ParameterTarget) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of A and B for a parameter, as PEFT's ``ParamWrapper`` creates them.

    The parameter is (out, in); or (experts, out, in), which is (experts, in, out) in some modules (``is_transposed``).

    Raises:
        WorkbenchError: the parameter has another number of dimensions.
    """
    shape, r = target.tensor.shape, target.r
    if len(shape) == 2:
        return (r, shape[1]), (shape[0], r)
    if len(shape) != 3:
        raise WorkbenchError(
            f"{target.site.name}.{target.tensor.name} has {len(shape)} dimensions; LoRA adapts weights of 2 or 3.",
            "Remove it from the targets.",
            kind="adapter_target",
        )
    experts, rows, columns = shape
    in_features, out_features = (rows, columns) if target.site.module.facts.get("is_transposed") else (columns, rows)
    return (r * experts, in_features), (out_features, r * experts)


def _saved(tensor: AdapterTensor, names: tuple[str, ...], dtype: str) -> SavedTensors:
    return SavedTensors(names, tensor.shape, tensor.dtype(dtype))


def _tensor_names(target: ModuleTarget | ParameterTarget, suffix: str) -> tuple[str, ...]:
    return _prefixed(tuple([site.name for site in target.sites]), suffix)


# Searches plan the same targets many times, with other ranks or data types.
@lru_cache(maxsize=1024)
def _prefixed(names: tuple[str, ...], suffix: str) -> tuple[str, ...]:
    return tuple([f"{_PREFIX}{name}{suffix}" for name in names])


def _module_tensors(modules: Iterable[AdaptedModule], targets: Targets) -> Iterator[_Named]:
    for module, target in zip(modules, targets.modules, strict=False):
        for tensor in module.tensors:
            yield _tensor_names(target, f".{tensor.name}"), tensor


def _shared_tensors(skeleton: Skeleton, targets: Targets, settings: AdapterSettings) -> Iterator[_Named]:
    if targets.modules:
        layers = [layer_of(target.site, skeleton) for target in targets.modules]
        for tensor in method_of(settings.method).shared(layers, settings):
            yield (f"base_model.{tensor.name}",), tensor


def _parameter_tensors(targets: Targets, dtypes: AdapterDtypes) -> Iterator[SavedTensors]:
    for target in targets.parameters:
        a_shape, b_shape = expert_shapes(target)
        wrappers = ".base_layer" * target.depth
        yield SavedTensors(_tensor_names(target, f"{wrappers}.lora_A.weight"), a_shape, dtypes.adapter)
        yield SavedTensors(_tensor_names(target, f"{wrappers}.lora_B.weight"), b_shape, dtypes.adapter)


def _saved_modules(targets: Targets, dtypes: AdapterDtypes) -> Iterator[SavedTensors]:
    for site in targets.saved_whole:
        for name, shape in _own_parameters(site.module):
            yield SavedTensors((f"{_PREFIX}{site.name}.{name}",), shape, dtypes.saved_whole)


def _head(skeleton: Skeleton, settings: AdapterSettings, dtypes: AdapterDtypes) -> Iterator[SavedTensors]:
    """The layer that predicts labels or a score, where the adapter has one."""
    if settings.head:
        hidden = int(skeleton.root.facts.get("hidden_size") or 0)
        yield SavedTensors((f"{_PREFIX}score.weight",), (settings.head, hidden), dtypes.saved_whole)


def _own_parameters(module: Module, prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all parameters in a copied module. A tied parameter is included: its copy is not tied."""
    for tensor in module.tensors:
        if not tensor.is_buffer:
            yield prefix + tensor.name, tensor.shape
    for child in module.children:
        for name in map(str, child.indices) if child.indices else (child.name,):
            yield from _own_parameters(child, f"{prefix}{name}.")


def _trained_biases(
    skeleton: Skeleton, targets: Targets, settings: AdapterSettings, dtypes: AdapterDtypes
) -> Iterator[SavedTensors]:
    """The base's biases that the setting ``bias`` makes trainable, under the names that PEFT saves."""
    if settings.bias == "none":
        return
    adapted = {site.name for target in targets.modules for site in target.sites}
    copied = tuple(f"{site.name}." for site in targets.saved_whole)
    for site in sites(skeleton):
        bias = site.parameter("bias")
        if bias is None or f"{site.name}.".startswith(copied):
            continue
        if site.name in adapted:
            yield SavedTensors((f"{_PREFIX}{site.name}.base_layer.bias",), bias.shape, dtypes.adapter)
        elif settings.bias == "all":
            yield SavedTensors((f"{_PREFIX}{site.name}.bias",), bias.shape, dtypes.adapter)


def _base_embeddings(skeleton: Skeleton, targets: Targets, dtypes: AdapterDtypes) -> Iterator[SavedTensors]:
    """The base weights that PEFT also saves if ``embed_tokens`` or ``lm_head`` is a target."""
    if not targets.embedding_is_named:
        return
    embeddings = {skeleton.root.facts.get("input_embedding"), skeleton.output}
    for target in targets.modules:
        if target.site.name in embeddings:
            for tensor in target.site.parameters:
                yield SavedTensors(_tensor_names(target, f".base_layer.{tensor.name}"), tensor.shape, dtypes.base)


def _adapted_modules(skeleton: Skeleton, targets: Targets, settings: AdapterSettings) -> Iterator[AdaptedModule]:
    """The adapted modules, with equal modules of different layers as one: first the layers, then the parameters."""
    method = method_of(settings.method)
    for target in targets.modules:
        site, layer = target.site, layer_of(target.site, skeleton)
        yield AdaptedModule(
            _range_name(target.sites),
            site.path,
            site.kind,
            target.r,
            method.tensors(layer, target.r, settings),
            len(target.sites),
        )
    for wrapped in targets.parameters:
        a_shape, b_shape = expert_shapes(wrapped)
        name = f"{_range_name(wrapped.sites)}.{wrapped.tensor.name}"
        path = f"{wrapped.site.path}.{wrapped.tensor.name}"
        tensors = AdapterTensor("lora_A.weight", a_shape), AdapterTensor("lora_B.weight", b_shape)
        yield AdaptedModule(name, path, "parameter", wrapped.r, tensors, len(wrapped.sites))


def _range_name(members: tuple[Site, ...]) -> str:
    """``model.layers.0–27.self_attn.q_proj``: each index that differs between the modules as a range."""
    parts = [site.name.split(".") for site in (members[0], members[-1])]
    return ".".join(first if first == last else f"{first}–{last}" for first, last in zip(*parts, strict=True))
