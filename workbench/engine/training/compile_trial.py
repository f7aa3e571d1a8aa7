"""Whether compiled layers pay within a run: a few of its own micro-batches, timed without them and with them.

Nothing of the run moves by it. What was found is kept, so that the next run of the same kind need not compile in order
to know.

Imports torch: only for the process that trains.
"""

import hashlib
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch

from workbench.engine.batches.oom_split import is_out_of_memory
from workbench.engine.kernels.compiled_layers import CompiledLayers
from workbench.engine.kernels.padding_free import APART
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import device_facts, free_cached_memory, library_versions
from workbench.engine.steering.ranks import Ranks
from workbench.engine.training.trainer import WorkbenchTrainer
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.schema import AUTO, Auto
from workbench.storage.atomic import write_text

T = TypeVar("T")

TIMED = 3
"""Micro-batches that are timed each way, after one that is not: caches are filled in it."""

MOST_SAVED = 0.5
"""The largest share of a step that is hoped for where nothing was measured; most of a step is matrix products."""

LEAST_COMPILING = 15.0
"""Seconds that compiling takes at the least, where nothing was measured."""


@dataclass(frozen=True)
class Timing:
    """Seconds a token without compiled layers and with them, and seconds that compiling took."""

    usual: float
    compiled: float
    compiling: float

    @property
    def gain(self) -> float:
        """Share of the time that is saved; below 0 where compiled layers are slower."""
        return 1 - self.compiled / self.usual

    def pays_within(self, tokens: int) -> bool:
        """Whether compiling is earned back within so many tokens."""
        return tokens * (self.usual - self.compiled) > self.compiling


@dataclass(frozen=True)
class Verdict:
    """``layers`` is None where the run is not compiled. ``failed``: it could not be."""

    layers: CompiledLayers | None
    reason: str
    failed: bool = False


class Rehearsal:
    """Times a run's own micro-batches; made when training has begun.

    Args:
        kept: folder for what is found, and for compiled code.
        key: the same for runs whose steps take equally long.
        tell: told in words what is going on, which may take minutes.
    """

    def __init__(
        self, trainer: WorkbenchTrainer, ranks: Ranks, kept: Path, key: str, tell: Callable[[str], None]
    ) -> None:
        self._trainer = trainer
        self._ranks = ranks
        self._kept = kept
        self._file = kept / f"{key}.json"
        self._tell = tell

    def decide(self, wanted: bool | Auto) -> Verdict:
        """Compile where that is wanted, or where it pays; all processes of a run decide alike.

        Compiling is done once it is measured, so the faster way is then taken however short the run is.
        """
        known = self._ranks.broadcast(_read(self._file) if self._ranks.is_first else None)
        tokens = self._tokens_to_come()
        if wanted == AUTO and known is not None and not known.pays_within(tokens):
            return Verdict(None, f"Not compiled, by what was measured before: {_told(known)}; {tokens:,} are to come.")
        try:
            return self._measured(wanted, known, tokens)
        except _Failed as failure:
            self._trainer.compiled = None
            return Verdict(None, f"Not compiled: {failure}.", failed=True)
        finally:
            free_cached_memory()

    def _measured(self, wanted: bool | Auto, known: Timing | None, tokens: int) -> Verdict:
        self._tell("timing steps as they are")
        usual = self._timed()
        whole = usual * tokens
        if wanted == AUTO and known is None and whole * MOST_SAVED < LEAST_COMPILING:
            return Verdict(None, f"Not compiled: the run takes about {whole:.0f} s, too short to earn it back.")
        self._tell("compiling the layers")
        layers, compiling = self._together(self._compile)
        self._tell("timing compiled steps")
        found = Timing(usual, self._timed(), max(self._ranks.gather(compiling)))
        if self._ranks.is_first:
            _write(self._file, found)
        if wanted == AUTO and found.gain <= 0:
            self._trainer.compiled = None
            return Verdict(None, f"Not compiled: {_told(found)}.")
        return Verdict(layers, f"Layers compiled: {_told(found)}.")

    # -- micro-batches --------------------------------------------------------------------------------------------

    @property
    def _micro_batch(self) -> int:
        return min(int(self._trainer.args.per_device_train_batch_size), len(self._trainer.train_dataset))

    def _tokens_to_come(self) -> int:
        """What this process is still to be fed."""
        trainer = self._trainer
        per_step = trainer.args.gradient_accumulation_steps * trainer.args.world_size
        left = max(trainer.micro_batches - trainer.state.global_step * per_step, 0) / trainer.args.world_size
        data = trainer.train_dataset
        shown = data.select(range(0, len(data), max(len(data) // 200, 1)))["input_ids"]
        return int(left * self._micro_batch * sum(map(len, shown)) / len(shown))

    def _timed(self) -> float:
        """Seconds a token, of the slowest process."""
        size, count = self._micro_batch, len(self._trainer.train_dataset)
        # From all over the records, which may be sorted.
        starts = [place * (count - size) // TIMED for place in range(TIMED + 1)]

        def work() -> float:
            self._trainer.rehearse(range(starts[0], starts[0] + size))
            _wait_for_device()
            started = time.perf_counter()
            tokens = sum(self._trainer.rehearse(range(start, start + size)) for start in starts[1:])
            _wait_for_device()
            return (time.perf_counter() - started) / tokens

        return max(self._ranks.gather(self._together(work)))

    def _compile(self) -> tuple[CompiledLayers, float]:
        """The layers at work, and seconds that compiling them took."""
        started = time.perf_counter()
        layers = self._trainer.compiled = CompiledLayers(self._trainer.model, self._kept / "code", [APART])
        self._trainer.rehearse(range(self._micro_batch))
        _wait_for_device()
        # What cannot be compiled later on, for another shape, is computed as usual.
        layers.is_strict = False
        return layers, time.perf_counter() - started

    def _together(self, work: Callable[[], T]) -> T:
        """Do the work in each process.

        Raises:
            _Failed: in one of them it could not be done.
        """
        result: list[T] = []
        problem = ""
        try:
            result.append(work())
        except Exception as error:
            if is_out_of_memory(error):
                problem = "a whole micro-batch does not fit in memory"
            else:
                traceback.print_exc()
                problem = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        for told in self._ranks.gather(problem):
            if told:
                raise _Failed(told)
        return result[0]


def step_key(recipe: ResolvedRecipe, base: LoadedBase, padding_free: bool) -> str:
    """The same for runs whose steps take equally long: model, adapter, batch, device, versions."""
    config = {name: value for name, value in base.model.config.to_dict().items() if name != "_name_or_path"}
    training = ("per_device_train_batch_size", "gradient_checkpointing", "kernels")
    facts = {
        "config": config,
        "precision": base.precision.compute,
        "quantization": recipe.quantization.model_dump(),
        "adapter": recipe.adapter.model_dump(),
        "data": {name: getattr(recipe.data, name) for name in ("max_length", "packing", "source")},
        "training": {name: getattr(recipe.training, name) for name in training},
        "padding_free": padding_free,
        "device": device_facts().name,
        "versions": library_versions(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class _Failed(Exception):  # noqa: N818  (no error of the run, which goes on)
    """A step could not be rehearsed."""


def _told(timing: Timing) -> str:
    """``steps take 12 % less time, which earns 67 s of compiling back in 120,000 tokens``."""
    share = f"{abs(100 * timing.gain):.0f} %"
    if timing.gain <= 0:
        return f"compiled steps take {share} more time"
    after = timing.compiling / (timing.usual - timing.compiled)
    return (
        f"steps take {share} less time, which earns {timing.compiling:.0f} s of compiling back in {after:,.0f} tokens"
    )


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _read(file: Path) -> Timing | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        timing = Timing(*(float(found[name]) for name in ("usual", "compiled", "compiling")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return timing if min(timing.usual, timing.compiled) > 0 else None


def _write(file: Path, timing: Timing) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(file, json.dumps(asdict(timing)))
    except OSError:
        # A run is worth more than what is remembered of it.
        traceback.print_exc()
