"""Plans an export: predicts its size, disk space, memory and time, and refuses a request that cannot work.

Planning needs no torch.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from workbench.adapters.registry import method_of
from workbench.engine.model.adapter_folder import check_adapter
from workbench.errors import WorkbenchError
from workbench.export.gguf.mixture import MIXTURES
from workbench.export.gguf.support import Writer, check_is_low_rank, choose_writer
from workbench.export.gguf.tools import find_tools
from workbench.export.other_tools.objectives import NAMES, named_there
from workbench.export.request import TRAINING_HEADS, WITH_CHOICE, WITH_HEAD, WITHOUT_WEIGHTS, GgufType, Request
from workbench.export.staging import check_target_folder, free_bytes
from workbench.models.local import describe_folder, safetensors_header, weight_files
from workbench.models.sources import LocalModel, find_local
from workbench.recipe.data_sources import exists, source_names, split_inner
from workbench.recipe.schema import Recipe
from workbench.recipe.text import on_base
from workbench.runs.folder import RunFolder
from workbench.storage.folders import files_in
from workbench.storage.paths import Home
from workbench.units import size_in

# Everything but the weights: configuration, model card, template, and a margin for disk blocks.
_OTHER_FILES_BYTES = 2_000_000
# The tokenizer in a GGUF file's header: about 40 bytes per token of the vocabulary, and 40 for its merge.
_GGUF_HEADER_BYTES_PER_TOKEN = 80
# Rough times and speeds, measured on two cores and an ordinary disk.
_START_SECONDS = 12.0  # to start Python with torch
_MERGE_BYTES_PER_SECOND = 60e6  # to load, merge, save and read back 16-bit weights
_GGUF_BYTES_PER_SECOND = 25e6  # to write and read back a GGUF file
_COPY_BYTES_PER_SECOND = 150e6  # to copy an adapter
_DOWNLOAD_BYTES_PER_SECOND = 2e6  # to download llama.cpp's converter
# Peak memory as a multiple of the 16-bit weights, for merging and for dequantizing a GGUF file.
_MERGE_MEMORY_FACTOR = 1.6
_GGUF_MEMORY_FACTOR = 3.0
# Bits per number of a matrix: blocks of 32 numbers with a scale; of the mixtures, their usual average.
_BITS: dict[GgufType, float] = {"f16": 16, "q8_0": 8.5, "q5_k_m": 5.7, "q4_k_m": 4.9}
# Memory of the helper process without any weights.
_PYTHON_BYTES = 1_200_000_000


@dataclass(frozen=True)
class Plan:
    """The size, disk space, memory and time of an export, in bytes and seconds.

    Attributes:
        size: size of the finished export.
        disk: disk space that making the export needs.
        free: free disk space.
        memory: host memory that the helper process needs.
        free_memory: free host memory.
        seconds: a rough estimate of the time.
        precise: whether there is enough memory to merge in 32 bits before GGUF rounds the weights.
        writer: what writes the GGUF file; None if none is written.
    """

    size: int
    disk: int
    free: int
    memory: int
    free_memory: int
    seconds: float
    precise: bool = False
    writer: Writer | None = None
    notices: tuple[str, ...] = ()

    @property
    def download(self) -> int:
        """Bytes to download before the export can be made: llama.cpp's converter, where it is missing."""
        return self.writer.download_bytes if self.writer is not None else 0

    def as_json(self) -> dict[str, object]:
        """The plan as JSON data."""
        writer = self.writer.kind if self.writer is not None else None
        return {**asdict(self), "writer": writer, "download": self.download}

    def check(self, folder: Path) -> None:
        """Raise WorkbenchError if there is too little disk space or memory."""
        if self.free < self.disk:
            raise WorkbenchError(
                f"The export needs {_amount(self.disk)}, but the disk of {folder} has only {_amount(self.free)} free.",
                "Free some space, or choose a folder on another disk.",
                kind="disk_full",
            )
        if self.free_memory < self.memory:
            raise WorkbenchError(
                f"Merging needs about {_amount(self.memory)} of memory, but only {_amount(self.free_memory)} is free.",
                "Close other programs (`loraworkbench engine stop` frees the engine's memory), or export the adapter.",
                kind="out_of_memory",
            )


def plan_export(home: Home, run: RunFolder, request: Request) -> Plan:
    """Plan an export. This takes milliseconds.

    Raises:
        WorkbenchError: the adapter or the base is missing, the target does not support the architecture, the folder
            must not be replaced, or the request is incomplete.
    """
    check_target_folder(request.folder, request.force)
    recipe = on_base(run.recipe(), request.base)
    _check_objective(recipe, request)
    _check_other_tool(recipe, request)
    if request.target == "hub" and not request.repo:
        raise WorkbenchError("No hub repository given.", "Add --repo owner/name.", kind="no_repo")
    plan = Plan(
        size=_OTHER_FILES_BYTES,
        disk=2 * _OTHER_FILES_BYTES,
        free=free_bytes(request.folder),
        memory=0,
        free_memory=psutil.virtual_memory().available,
        seconds=2.0,
    )
    if request.target in WITHOUT_WEIGHTS:
        return _plan_records(run, recipe, plan)
    config = check_adapter(run.adapter)
    if request.target == "gguf-lora":
        check_is_low_rank(config)
        return _plan_lora(home, run, request, local_base(home, recipe), plan)
    if not request.merges:
        size = sum(status.st_size for _, status in files_in(run.adapter)) + _OTHER_FILES_BYTES
        return replace(plan, size=size, disk=size, seconds=2.0 + size / _COPY_BYTES_PER_SECOND)
    method = method_of(recipe.adapter.method)
    if method.merge_refusal:
        raise WorkbenchError(
            f"{method.label} cannot be merged: {method.merge_refusal}.",
            "Export the adapter itself.",
            kind="cannot_merge",
        )
    return _plan_merge(home, request, recipe, local_base(home, recipe), plan)


def _check_objective(recipe: Recipe, request: Request) -> None:
    """Refuse targets that cannot hold what the objective made.

    Raises:
        WorkbenchError: the run trained a head, which the target does not carry.
    """
    kind = recipe.objective.kind
    if request.target in TRAINING_HEADS:
        return
    if recipe.objective.spec.has_head and (request.target not in WITH_HEAD or request.merges):
        target = "merged weights" if request.merges and request.target in WITH_CHOICE else request.target
        raise WorkbenchError(
            f"{target} has no counterpart for a run of the objective {kind}: its adapter predicts "
            f"{'labels' if recipe.objective.spec.head == 'labels' else 'a score'} with a head of its own, and no text.",
            f"Export {', '.join(WITH_HEAD)}: the adapter loads on AutoModelForSequenceClassification.",
            kind="objective",
        )


_METHODS = {"axolotl": ("lora",), "llamafactory": ("lora", "oft")}


def _check_other_tool(recipe: Recipe, request: Request) -> None:
    """Refuse another tool's configuration where that tool has no such adapter or objective.

    Raises:
        WorkbenchError: it has not.
    """
    if (known := _METHODS.get(request.target)) is None:
        return
    if recipe.adapter.method not in known:
        raise WorkbenchError(
            f"{NAMES[request.target]} has no adapter.method {recipe.adapter.method}.",
            f"It has {' and '.join(known)}. Export the script, which repeats the run, or the adapter.",
            kind="adapter_method",
        )
    if recipe.objective.spec.records != "texts":
        named_there(recipe.objective, request.target)


def local_base(home: Home, recipe: Recipe) -> LocalModel:
    """The base model on this machine.

    Raises:
        WorkbenchError: it is not on this machine.
    """
    local = find_local(home, recipe.model)
    if local is None:
        raise WorkbenchError(
            f"The base {recipe.model.source} is not on this machine.",
            f"Download it first: `loraworkbench chat {recipe.model.source}`, or on the Models screen; or "
            "if you have it under another name or path, give that with --base.",
            kind="model_not_found",
        )
    return local


def _plan_records(run: RunFolder, recipe: Recipe, plan: Plan) -> Plan:
    """Plan an export of the recipe and the records; sources that are not local files count as empty."""
    files = [Path(split_inner(name)[0]).expanduser() for name in source_names(recipe.data.source)]
    source_bytes = sum(file.stat().st_size for file in files if exists(str(file)) and file.is_file())
    size = 3 * source_bytes + _OTHER_FILES_BYTES
    return replace(plan, size=size, disk=size, seconds=_START_SECONDS + source_bytes / 1e6)


def _plan_merge(home: Home, request: Request, recipe: Recipe, local: LocalModel, plan: Plan) -> Plan:
    facts = describe_folder(local.folder)
    if facts.parameters is None:
        raise WorkbenchError(
            f"{recipe.model.source} is a pre-quantized model; an adapter cannot be merged into it.",
            "Export the adapter itself, or train on the 16-bit model.",
            kind="cannot_merge",
        )
    notices = []
    if recipe.quantization.method != "none":
        notices.append(
            f"Trained on the {recipe.quantization.method} base, merged into the 16-bit base: results "
            "differ slightly, as always when the adapter is used on an unquantized base."
        )
    weight_bytes = 2 * facts.parameters
    precise, writer, temporary = False, None, 0
    memory = int(weight_bytes * _MERGE_MEMORY_FACTOR) + _PYTHON_BYTES
    seconds = _START_SECONDS + weight_bytes / _MERGE_BYTES_PER_SECOND
    size = weight_bytes + _tokenizer_bytes(local.folder) + _OTHER_FILES_BYTES
    if request.makes_gguf:
        writer = choose_writer(find_tools(home), facts.config, request.type, download=request.download)
        size = (
            _gguf_bytes(local.folder, request.type)
            + (facts.vocabulary or 0) * _GGUF_HEADER_BYTES_PER_TOKEN
            + _OTHER_FILES_BYTES
        )
        precise = plan.free_memory >= 2 * weight_bytes * _GGUF_MEMORY_FACTOR + _PYTHON_BYTES
        memory = int((2 if precise else 1) * weight_bytes * _GGUF_MEMORY_FACTOR) + _PYTHON_BYTES
        if not precise:
            notices.append("Not enough memory to merge in 32 bits; merging in 16 bits is slightly less precise.")
        seconds += size / _GGUF_BYTES_PER_SECOND
        if writer.kind != "own":
            # The merged model as the converter reads it, and the 16-bit file that is quantized.
            temporary = (2 if precise else 1) * weight_bytes
            temporary += weight_bytes if request.type in MIXTURES else 0
            seconds += temporary / _MERGE_BYTES_PER_SECOND + writer.download_bytes / _DOWNLOAD_BYTES_PER_SECOND
        window = facts.config.get("sliding_window")
        if facts.model_type == "mistral" and isinstance(window, int) and 0 < window < (facts.context or 0):
            notices.append(f"llama.cpp ignores this model's attention window of {window} tokens.")
    return replace(
        plan,
        size=size,
        disk=int(size * 1.02) + temporary,
        memory=memory,
        seconds=seconds,
        precise=precise,
        writer=writer,
        notices=tuple(notices),
    )


def _plan_lora(home: Home, run: RunFolder, request: Request, local: LocalModel, plan: Plan) -> Plan:
    """Plan an adapter in GGUF: a whole model is converted in float32 for it, and the base in 16 bits for its check."""
    facts = describe_folder(local.folder)
    if facts.parameters is None:
        raise WorkbenchError(
            f"{local.source} is a pre-quantized model, which llama.cpp's converter cannot take as the base.",
            "Export the adapter as `adapter`.",
            kind="cannot_merge",
        )
    writer = choose_writer(find_tools(home), facts.config, "f16", download=request.download, is_adapter=True)
    whole = 4 * facts.parameters
    size = sum(status.st_size for file, status in files_in(run.adapter) if file.suffix == ".safetensors")
    return replace(
        plan,
        size=size + _OTHER_FILES_BYTES,
        disk=size + 2 * whole + _OTHER_FILES_BYTES,
        memory=int(whole * _MERGE_MEMORY_FACTOR) + _PYTHON_BYTES,
        seconds=_START_SECONDS
        + 5 * whole / _MERGE_BYTES_PER_SECOND
        + writer.download_bytes / _DOWNLOAD_BYTES_PER_SECOND,
        writer=writer,
    )


def _gguf_bytes(folder: Path, gguf_type: GgufType) -> int:
    """Bytes of the tensors; vectors are always in float32."""
    total = 0.0
    for file in weight_files(folder)[0]:
        for tensor in safetensors_header(file).values():
            shape = tensor["shape"]
            blocks = gguf_type != "f16" and shape[-1:] and shape[-1] % 32 == 0
            bits = 32 if len(shape) < 2 else _BITS[gguf_type] if blocks else 16
            total += math.prod(shape) * bits / 8
    return int(total)


def _tokenizer_bytes(folder: Path) -> int:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
    return sum((folder / name).stat().st_size for name in names if (folder / name).is_file())


def _amount(count: int) -> str:
    return size_in("GB", count) if count >= 1e9 else size_in("MB", count, 0)
