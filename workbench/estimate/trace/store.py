"""Stores timelines on disk: those of the catalog's models are shipped with the package, others are traced once.

A timeline is valid for an architecture, the recipe settings that change the computation, and the versions of the
libraries; micro-batch, record length and rank are free.
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

from workbench.adapters.registry import DEFAULT, method_of
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import AdapterPlan
from workbench.estimate.footprint import Footprint, PackedStorage, Storage, measure_base
from workbench.estimate.peak import Peak
from workbench.estimate.setup import Setup
from workbench.estimate.step import Step, Variant, plan_step
from workbench.estimate.trace.lengths import extents_of, needs_check
from workbench.estimate.trace.predict import peak_from
from workbench.estimate.trace.timeline import FORMAT, Timeline, TimelineData, TraceFailure
from workbench.machine.device import Device
from workbench.models.catalog import FOLDER
from workbench.models.skeleton import Skeleton
from workbench.models.skeleton_json import skeleton_to_json
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.sections.model import AttentionName
from workbench.storage.atomic import write_text

SHIPPED = FOLDER / "traces.json"
_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "trl")
_SECONDS = 300


class TraceStore:
    """Finds stored timelines, and traces new ones.

    Args:
        folder: where new timelines are stored; None to use only the shipped ones.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Timeline | None] = {}

    def __call__(self, skeleton: Skeleton, adapter: AdapterSettings, step: Step, plan: AdapterPlan) -> Peak | None:
        """The peak memory from a timeline; None if there is none (yet)."""
        timeline = self.find(skeleton, adapter, step)
        if timeline is None:
            return None
        return peak_from(timeline, _base(skeleton, step.storage), plan, step, adapter.r)

    def find(self, skeleton: Skeleton, adapter: AdapterSettings, step: Step) -> Timeline | None:
        key = key_of(skeleton, adapter, step)
        if key not in self._known:
            found = self._read(key)
            if found is None and key not in _shipped():
                return None  # not cached, as another process may trace it meanwhile
            self._known[key] = _timeline(found if found is not None else _shipped()[key])
        return self._known[key]

    def trace(
        self, skeleton: Skeleton, recipe: ResolvedRecipe, device: Device | None = None, variant: Variant = "workbench"
    ) -> Timeline:
        """Trace a step in a helper process (about 10 s, half of it to import torch) and store the timeline.

        Raises:
            WorkbenchError: this architecture cannot be traced; its peak remains an estimate by formula.
        """
        setup = Setup.of(recipe)
        step = plan_step(setup, device, variant)
        if not can_trace(skeleton, step, setup.adapter):
            raise WorkbenchError(
                f"A step of {skeleton.architecture} in {step.compute} cannot be traced.",
                "The estimate is used instead.",
                kind="trace_unsupported",
            )
        request = {
            "skeleton": skeleton_to_json(skeleton),
            "recipe": recipe.as_dict(),
            "device": asdict(device or Device()),
            "variant": variant,
        }
        answer = _run_helper(request)
        if "error" in answer:
            raise WorkbenchError(
                f"A step of {skeleton.architecture} cannot be traced without data: {answer['error']}.",
                "The estimate is used instead.",
                kind="trace_unsupported",
            )
        timeline = Timeline.from_json(answer)
        key = key_of(skeleton, setup.adapter, step)
        self._known[key] = timeline
        self._write(key, answer)
        return timeline

    def _read(self, key: str) -> TimelineData | None:
        if self._folder is None:
            return None
        try:
            data: TimelineData = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not made yet, or cut off while written: it is made again
            return None
        return data

    def _write(self, key: str, answer: TimelineData) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text(self._folder / f"{key}.json", json.dumps(answer))


def can_trace(skeleton: Skeleton, step: Step, adapter: AdapterSettings) -> bool:
    """Whether a step can be traced at all: of the quantized layers, only those of bitsandbytes.

    Some adapter methods need data to be built.

    Models without attention process a record token by token if their own kernels are missing, as they are without data.
    """
    is_packed = isinstance(step.loaded, PackedStorage)
    is_refused = bool(method_of(adapter.method).trace_refusal)
    return not (is_packed or is_refused) and bool(skeleton.root.facts.get("heads"))


def key_of(skeleton: Skeleton, adapter: AdapterSettings, step: Step) -> str:
    """A key of everything that a timeline depends on."""
    r = 0 if method_of(adapter.method).shapes_follow_rank else adapter.r
    return _key(skeleton, replace(adapter, r=r), replace(step, batch=0, length=0))


@lru_cache(maxsize=512)
def _key(skeleton: Skeleton, adapter: AdapterSettings, step: Step) -> str:
    targets = adapter.target_modules
    parts: dict[str, object] = {
        "format": FORMAT,
        "versions": _versions(),
        "tree": _tree_digest(skeleton),
        "variant": step.variant,
        "storage": asdict(step.loaded),
        "compute": step.compute,
        "checkpointing": step.checkpointing,
        "accumulates": step.accumulates,
        "unfused": step.optimizer == "adamw_torch",
        "dropout": step.dropout > 0,
        "targets": targets if isinstance(targets, str) else sorted(targets),
        "bias": adapter.bias,
        "dora": adapter.use_dora,
        "saved": adapter.modules_to_save,
        "layers": adapter.layers_to_transform,
        "ranks": adapter.rank_pattern,
    }
    # What only some steps have is no part of the key of the others, which are those of the shipped timelines.
    parts |= {
        name: value
        for name in ("autocast", "keeps_outputs", "is_masked", "offloads", "tiles", "smooths")
        if (value := getattr(step, name))
    }
    if (attention := _attention_of(step)) != "auto":
        parts["attention"] = attention
    if adapter.method != DEFAULT:
        # Of LoRA nothing else matters; its keys are those of the shipped timelines.
        parts |= {"method": adapter.method, "r": adapter.r, "options": adapter.options}
    if needs_check(skeleton.config):
        # A timeline from before these were known is none.
        parts["extents"] = extents_of(skeleton.config)
    if adapter.exclude_modules or adapter.layers_pattern:
        parts |= {"excluded": adapter.exclude_modules, "pattern": adapter.layers_pattern}
    if step.reads_texts:
        parts["reads_texts"] = True
    if adapter.trains_b_only:
        parts["trains_b_only"] = True
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _attention_of(step: Step) -> AttentionName:
    """The attention that a step is traced with: PyTorch chooses the same flash attention for 16 bits without a mask."""
    is_narrow = step.variant == "workbench" and step.compute != "float32"
    is_flash = step.attention == "sdpa" or (step.attention == "flash_attention_2" and is_narrow)
    return "auto" if is_flash else step.attention


@lru_cache(maxsize=64)
def _tree_digest(skeleton: Skeleton) -> str:
    tree = skeleton_to_json(skeleton)
    return hashlib.sha256(json.dumps([tree["root"], tree["config"]], sort_keys=True).encode()).hexdigest()


@cache
def _versions() -> dict[str, str]:
    """Major and minor versions of the libraries that a step runs through."""
    return {name: ".".join(metadata.version(name).split(".")[:2]) for name in _LIBRARIES}


@cache
def _shipped() -> dict[str, TimelineData]:
    try:
        data: dict[str, TimelineData] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return data


def _timeline(data: TimelineData) -> Timeline | None:
    try:
        return Timeline.from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError):  # kept by another version
        return None


def _run_helper(request: dict[str, object]) -> TimelineData | TraceFailure:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "workbench.estimate.trace.run"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=True,
            timeout=_SECONDS,
            # The helper computes nothing: it must not take a context on a GPU that may be training.
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        answer: TimelineData | TraceFailure = json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise WorkbenchError(
            f"The tracing process ended early: {type(error).__name__}.",
            "The estimate is used instead; `loraworkbench doctor` checks whether torch can be imported.",
            kind="trace_failed",
        ) from error
    return answer


@lru_cache(maxsize=256)
def _base(skeleton: Skeleton, storage: Storage) -> Footprint:
    return measure_base(skeleton, storage)
