"""What an export will take, told ahead: size, disk, memory, time; and what stands in its way. Needs no torch."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from workbench.engine.model.base import check_adapter
from workbench.errors import WorkbenchError
from workbench.export.gguf.support import check_gguf_support
from workbench.export.request import WITHOUT_WEIGHTS, Request
from workbench.export.staging import check_place, room
from workbench.models.local import describe_folder, safetensors_header, weight_files
from workbench.models.sources import LocalModel, find_local
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder
from workbench.storage.folders import files_in
from workbench.storage.paths import Home
from workbench.units import size_in

# Beside the weights: configuration, card, template, a margin for what is counted in blocks.
_BESIDE = 2_000_000
# A GGUF file's header: some 40 bytes a token and as many a merge.
_HEADER_A_TOKEN = 80
# Time is told as what two cores and a plain disk took, and is rough: starting Python with torch; for each byte of
# 16-bit weights, loading, merging, saving and reading back; for each byte of GGUF, writing and reading back.
_START_SECONDS = 12.0
_MERGE_BYTES_A_SECOND = 60e6
_GGUF_BYTES_A_SECOND = 25e6
_COPY_BYTES_A_SECOND = 150e6
# 16-bit weights in memory while they are merged and read back, and GGUF's while it is dequantised, as shares of them.
_MERGE_MEMORY, _GGUF_MEMORY = 1.6, 3.0
_PYTHON_MEMORY = 1_200_000_000


@dataclass(frozen=True)
class Plan:
    """What an export takes. Bytes are bytes; ``seconds`` is a rough guess.

    Attributes:
        size: of what will lie in the folder.
        disk: free space needed while it is made. free: what there is.
        memory: of the machine, for the helper process. free_memory: what there is.
        precise: whether the memory allows to merge in 32 bits what a GGUF file rounds by itself.
    """

    size: int
    disk: int
    free: int
    memory: int
    free_memory: int
    seconds: float
    precise: bool = False
    notices: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def check(self, folder: Path) -> None:
        """Raises WorkbenchError when disk or memory do not suffice."""
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
    """Look at what is asked for; takes milliseconds.

    Raises:
        WorkbenchError: it cannot be done: no adapter, no base, an architecture that the target does not know, a folder
            that must not be replaced, or a request that lacks something.
    """
    check_place(request.folder, request.force)
    recipe = run.recipe()
    if request.target == "hub" and not request.repo:
        raise WorkbenchError("No hub repository given.", "Add --repo owner/name.", kind="no_repo")
    plan = Plan(_BESIDE, 2 * _BESIDE, room(request.folder), 0, psutil.virtual_memory().available, 2.0)
    if request.target in WITHOUT_WEIGHTS:
        return _plan_records(run, recipe, plan)
    check_adapter(run.adapter)
    if not request.merges:
        size = sum(found.st_size for _, found in files_in(run.adapter)) + _BESIDE
        return replace(plan, size=size, disk=size, seconds=2.0 + size / _COPY_BYTES_A_SECOND)
    local = base_here(home, recipe)
    return _plan_merge(request, recipe, local, plan)


def base_here(home: Home, recipe: Recipe) -> LocalModel:
    """The base on this machine.

    Raises:
        WorkbenchError: it is not here (any more).
    """
    local = find_local(home, recipe.model)
    if local is None:
        raise WorkbenchError(
            f"The base {recipe.model.source} is not on this machine.",
            f"Download it first: `loraworkbench chat {recipe.model.source}`, or on the Models screen.",
            kind="model_not_found",
        )
    return local


def _plan_records(run: RunFolder, recipe: Recipe, plan: Plan) -> Plan:
    """Records as text or tokens take about what the source takes; where that is not here, nobody knows."""
    path = Path(recipe.data.source).expanduser()
    size = path.stat().st_size if path.is_file() else 0
    needed = 3 * size + _BESIDE
    return replace(plan, size=needed, disk=needed, seconds=_START_SECONDS + size / 1e6)


def _plan_merge(request: Request, recipe: Recipe, local: LocalModel, plan: Plan) -> Plan:
    facts = describe_folder(local.folder)
    if facts.parameters is None:
        raise WorkbenchError(
            f"{recipe.model.source} is a pre-quantised model; an adapter cannot be merged into it.",
            "Export the adapter itself, or train on the 16-bit model.",
            kind="cannot_merge",
        )
    notices = []
    if recipe.quantization.method != "none":
        notices.append(
            f"Trained on the {recipe.quantization.method} base, merged into the 16-bit base: results "
            "differ slightly, as always when the adapter is used on an unquantised base."
        )
    whole, precise = 2 * facts.parameters, False
    memory = int(whole * _MERGE_MEMORY) + _PYTHON_MEMORY
    seconds = _START_SECONDS + whole / _MERGE_BYTES_A_SECOND
    size = whole + _tokenizer_bytes(local.folder) + _BESIDE
    if request.makes_gguf:
        check_gguf_support(facts.config)
        size = _gguf_bytes(local.folder, request.type) + (facts.vocabulary or 0) * _HEADER_A_TOKEN + _BESIDE
        precise = plan.free_memory >= 2 * whole * _GGUF_MEMORY + _PYTHON_MEMORY
        memory = int((2 if precise else 1) * whole * _GGUF_MEMORY) + _PYTHON_MEMORY
        if not precise:
            notices.append("Not enough memory to merge in 32 bits; merging in 16 bits is slightly less precise.")
        seconds += size / _GGUF_BYTES_A_SECOND
        window = facts.config.get("sliding_window")
        window = window if isinstance(window, int) else 0
        if facts.model_type == "mistral" and window and (facts.context or 0) > window:
            notices.append(f"llama.cpp ignores this model's attention window of {window} tokens.")
    return replace(
        plan, size=size, disk=int(size * 1.02), memory=memory, seconds=seconds, precise=precise, notices=tuple(notices)
    )


def _gguf_bytes(folder: Path, kind: str) -> int:
    """Bytes of the tensors: 2 a number in f16; 34 for each 32 in q8_0; vectors in float32."""
    total = 0
    for file in weight_files(folder)[0]:
        for tensor in safetensors_header(file).values():
            shape = tensor["shape"]
            count = math.prod(shape)
            if len(shape) < 2:
                total += 4 * count
            elif kind == "q8_0" and shape[-1] % 32 == 0:
                total += count // 32 * 34
            else:
                total += 2 * count
    return total


def _tokenizer_bytes(folder: Path) -> int:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
    return sum((folder / name).stat().st_size for name in names if (folder / name).is_file())


def _amount(count: int) -> str:
    return size_in("GB", count) if count >= 1e9 else size_in("MB", count, 0)
