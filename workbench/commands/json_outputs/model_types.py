"""The outputs about models and estimates.

A key is never renamed or removed: programs read them. A new one may be added.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class LocalModelLine(TypedDict):
    """A model on this machine.

    Attributes:
        source: its name in a recipe: a hub id, or an absolute path.
        where: ``here``.
        origin: ``hub``, ``local``, ``gguf`` or ``wheel``.
        folder: the folder with its files.
        bytes: size of its weights.
        license: empty if its files do not state one.
        missing: what it lacks for training; empty if it is complete.
    """

    source: str
    where: Literal["here"]
    origin: str
    folder: str
    bytes: int
    architecture: str
    license: str
    missing: str


class OwnModelLine(TypedDict):
    """A model of the user's list.

    Attributes:
        where: the list's file name; ``line`` counts from 1.
        note: the user's.
    """

    source: str
    where: str
    line: int
    note: str


class CatalogModelLine(TypedDict):
    """A model of the catalog.

    Attributes:
        source, id: its hub id.
        where: ``catalog``.
        license: empty if unknown.
        gated: whether its weights need a token and an accepted license; null if unknown.
        parameters: tied ones count once.
        context_length: in tokens; null if unlimited.
        dtype: of the published weights.
        tree: name of the file with its module tree.
        aliases: other ids of the same repository.
    """

    source: str
    where: Literal["catalog"]
    id: str
    family: str
    architecture: str
    model_type: str
    license: str
    gated: bool | None
    parameters: int
    context_length: int | None
    dtype: str
    tree: str
    aliases: list[str]


class HubModelLine(TypedDict):
    """A model that ``models --refresh`` read from the hub.

    Attributes:
        where: ``hub``. read_on: the day.
        parameters: null if the hub did not count them.
        created: the day on which its repository was made.
        config: the content of its ``config.json``.
    """

    source: str
    where: Literal["hub"]
    read_on: str
    id: str
    architecture: str
    model_type: str
    license: str
    gated: bool
    parameters: int | None
    created: str
    config: dict[str, Any]


class MethodFit(TypedDict):
    """The peak with one quantization method.

    Attributes:
        peak_bytes: what the device must have free.
        method: ``trace`` or ``closed-form``.
        fit: ``fits``, ``tight`` or ``does not fit``; fits: whether it is one of the first two.
    """

    peak_bytes: int
    method: str
    fits: bool
    fit: str


class ModelFit(TypedDict):
    """Whether a model of the catalog can be trained in an amount of memory.

    Attributes:
        changes: what was changed in the recipe so that PEFT accepts it.
        methods: by quantization method; one that is refused is missing.
    """

    source: str
    parameters: int
    changes: dict[str, Any]
    methods: dict[str, MethodFit | None]


class WeightsLook(TypedDict):
    """What is known about a model's weights, without loading them.

    Attributes:
        where: ``disk``, ``hub`` or ``nowhere``.
        read_from: what was read, in words.
        bytes: size of the weight files; 0 if unknown. files: how many there are.
        dtypes: elements as stored, by safetensors' dtype name; empty if the headers of the files were not read.
        license: empty if unknown.
        gated: whether the hub asks to accept the license first.
        note: why something is unknown or missing; empty if nothing is.
    """

    where: Literal["disk", "hub", "nowhere"]
    read_from: str
    bytes: int
    files: int
    dtypes: dict[str, int]
    license: str
    gated: bool
    note: str


class Tree(TypedDict):
    """A module tree.

    Attributes:
        format: version of the tree's form.
        output: name of the output layer.
        config: of the model, as far as estimates need it.
        root: the tree: ``class``, ``name`` or ``indices``, ``kind``, ``facts``, ``tensors``, ``children``.
        stored_quantization: how the model's files are quantized; only if they are.
        weights: what is known of its weights.
    """

    format: int
    architecture: str
    model_type: str
    output: str | None
    config: dict[str, Any]
    root: dict[str, Any]
    parameters: int
    stored_quantization: NotRequired[str]
    weights: WeightsLook


class EstimatedModel(TypedDict):
    """The model of an estimate. ``stored_quantization`` is null if its files are not quantized."""

    source: str
    architecture: str
    parameters: int
    stored_quantization: str | None


class AdaptedModuleData(TypedDict):
    """A module that gets an adapter.

    Attributes:
        name: full name, with the layers as a range.
        kind: of the base layer.
        tensors: shapes of what the adapter adds to one of the modules.
        parameters: trained in one of the modules.
        count: number of equal modules.
    """

    name: str
    kind: str
    r: int
    tensors: dict[str, list[int]]
    parameters: int
    count: int


class EstimatedAdapter(TypedDict):
    """The adapter of an estimate; exact.

    Attributes:
        total_parameters: of base and adapter.
        file_bytes: of ``adapter_model.safetensors``.
        left_out: matching layers without an adapter, by the part of the model that they are in.
        experts_left_out: parameters of experts that are stored as one weight, where all-linear does not reach them.
    """

    trainable_parameters: int
    total_parameters: int
    trainable_percent: float
    file_bytes: int
    dtype: str
    modules: list[AdaptedModuleData]
    left_out: dict[str, int]
    experts_left_out: int


class EstimatedBase(TypedDict):
    """The base of an estimate; exact.

    Attributes:
        footprint_bytes: as ``get_memory_footprint()`` counts.
        true_bytes: in memory.
        not_quantized: modules that the method cannot quantize.
    """

    footprint_bytes: int
    true_bytes: int
    not_quantized: list[str]


class PhaseBytes(TypedDict):
    """The peak of one phase of a run: as PyTorch's allocator counts what is allocated, and what it reserves."""

    allocated_bytes: int
    reserved_bytes: int


class EstimatedPhases(TypedDict):
    """The peaks of a run's phases: its training, loading its base, and its evaluations with sampled replies."""

    training: PhaseBytes
    loading: PhaseBytes
    evaluation: PhaseBytes


class EstimatedPeak(TypedDict):
    """The predicted peak of the training, in bytes.

    Attributes:
        allocated_bytes: as ``torch.cuda.max_memory_allocated`` counts.
        reserved_bytes: as ``torch.cuda.max_memory_reserved`` counts.
        reserved_range: the least and the most of it as records vary in length; null where no steps were replayed.
        host_bytes: pinned host memory for checkpoints (``training.gradient_checkpointing: offload``); else 0.
        terms: all but ``cuda_context`` add up to ``allocated_bytes``.
        method: ``trace`` or ``closed-form``.
        doubt: how far the peak may be off, as a share of it.
        phases: the peaks of training, loading and evaluation; the device must hold the highest.
    """

    allocated_bytes: int
    reserved_bytes: int
    reserved_range: list[int] | None
    host_bytes: int
    terms: dict[str, int]
    method: Literal["trace", "closed-form"]
    doubt: float
    phases: EstimatedPhases


class SuggestionData(TypedDict):
    """A single change that makes the recipe fit.

    Attributes:
        changes: by dotted key. cost: in words.
    """

    label: str
    changes: dict[str, Any]
    peak_bytes: int
    cost: str


class Estimate(TypedDict):
    """An estimate.

    Attributes:
        fits: null if no free memory is known.
        suggestions: the cheapest first; empty if it fits.
        chosen: values of settings on ``auto``; reasons: why.
        refused: why the base cannot be trained like this; null if it can.
    """

    model: EstimatedModel
    adapter: EstimatedAdapter
    base: EstimatedBase
    peak: EstimatedPeak
    fits: bool | None
    suggestions: list[SuggestionData]
    chosen: dict[str, Any]
    reasons: list[str]
    refused: str | None
    notices: list[str]
