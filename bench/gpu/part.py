"""What a part of the GPU bench is, and what it is given."""

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

MODEL = "meta-llama/Llama-3.2-1B"
"""The shapes of the model that most parts share; its weights are random."""


@dataclass(frozen=True)
class Here:
    """What decides whether a part can be run.

    Attributes:
        has_gpu: whether there is a CUDA GPU.
        toy: whether everything runs at toy size.
    """

    has_gpu: bool
    toy: bool


@dataclass(frozen=True)
class Part:
    """One part, run in a process of its own.

    Attributes:
        does: what it does, in a line.
        module: has ``measure(work)``; a name without a dot is one of ``bench/gpu/parts``.
        seconds: after so many it is ended.
        least: with fewer seconds left of the budget, it is left out.
        why_not: why it cannot be run here; empty if it can.
        settings: handed to ``measure``; parts that differ in nothing else share a module.
    """

    name: str
    does: str
    module: str
    seconds: float
    least: float
    why_not: Callable[[Here], str] = lambda here: ""
    settings: dict[str, Any] = field(default_factory=dict)


class Work:
    """What a part is given: where it runs, its folders, a model, records, and a file for its figures.

    Attributes:
        toy: whether everything runs at toy size.
        shared: a folder that all parts share.
        folder: one of the part's own.
        figures: what has been noted so far.
    """

    def __init__(self, shared: Path, folder: Path, out: Path, seconds: float, *, toy: bool) -> None:
        self.toy, self.shared, self.folder = toy, shared, folder
        self.figures: dict[str, Any] = {}
        self._out = out
        self._end = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until this part is ended."""
        return self._end - time.monotonic()

    def note(self, **figures: Any) -> None:
        """Add figures, and write all of them to the part's file: what follows may crash, or be ended."""
        self.figures |= figures
        write_text(self._out, json.dumps(self.figures, default=str))

    def check(self, name: str, holds: object, found: object = "") -> None:
        """Note whether something holds that must; :meth:`verdict` raises if anything did not."""
        checks = self.figures.setdefault("checks", {})
        checks[name] = "ok" if holds else f"FAILED: {found}"
        self.note()
        print(name, checks[name], flush=True)

    def verdict(self) -> None:
        """End the part.

        Raises:
            AssertionError: something did not hold.
        """
        failed = {name: found for name, found in self.figures.get("checks", {}).items() if found != "ok"}
        assert not failed, failed

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def home(self) -> Home:
        """A home of the part's own."""
        home = Home(self.folder / "home")
        home.root.mkdir(parents=True, exist_ok=True)
        return home

    def model(self) -> Path:
        """The folder of the model that parts share, made by the first one that asks."""
        folder = self.shared / "model"
        if not (folder / "config.json").is_file():
            beside = self.shared / f"model-{os.getpid()}"
            if self.toy:
                make_tiny(beside)
            else:
                from bench.random_model import words_of_first_mate, write_random_model

                write_random_model(MODEL, beside, words_of_first_mate(), self.device)
            beside.rename(folder)
        return folder

    def tiny_model(self) -> Path:
        """The folder of a tiny model of the part's own."""
        return make_tiny(self.folder / "tiny")

    def records(self, count: int) -> Path:
        """A file of that many records with answers of a realistic spread."""
        from bench.random_model import words_of_first_mate
        from bench.train import write_records

        file = self.folder / f"records-{count}.jsonl"
        write_records(file, count, words_of_first_mate(), random.Random(7))
        return file

    def recipe(self, changes: dict[str, Any] | None = None) -> Recipe:
        """Eight steps of QLoRA on the shared model, with the given changes."""
        changes = changes or {}
        settings: dict[str, Any] = {
            "model.source": changes.get("model.source") or str(self.model()),
            "adapter.r": 8,
            "adapter.lora_dropout": 0.0,
            "data.source": str(self.records(64)),
            "data.eval_fraction": 0.0,
            "data.max_length": 64 if self.toy else 512,
            "training.max_steps": 8,
            "training.per_device_train_batch_size": 4,
            "training.gradient_accumulation_steps": 1,
            "training.gradient_checkpointing": False,
            "training.save_steps": 0,
            "training.logging_steps": 1,
        }
        return edit(Recipe(), settings | changes)


def make_tiny(folder: Path) -> Path:
    """The tests' tiny random Llama."""
    from tests.conftest import make_tiny_llama

    return make_tiny_llama(folder)
