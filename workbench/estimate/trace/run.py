"""Traces one training step of a recipe on the meta device and keeps its highest moments. Imports torch.

Runs in a separate process (:func:`main`): a request as JSON on standard input, a timeline as JSON on standard output.
"""

import gc
import itertools
import json
import sys
from collections.abc import Iterable, Iterator

import torch

from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.estimate.peak import Moment
from workbench.estimate.step import Step, plan_step
from workbench.estimate.trace.allocator import CachingAllocator
from workbench.estimate.trace.head import LOSS, TILE, TiledLoss
from workbench.estimate.trace.kernels import cuda_like, workspace_bytes
from workbench.estimate.trace.monomial import Monomial, Powers, Probe
from workbench.estimate.trace.on_meta import resting_tensors, training_model
from workbench.estimate.trace.recorder import StorageRecorder
from workbench.estimate.trace.timeline import TILE_TOKENS, TILE_WIDTH, Point, Timeline, TimelineData, TraceFailure
from workbench.models.skeleton import Skeleton
from workbench.recipe.schema import Recipe

INPUTS, FORWARD, BACKWARD, OPTIMIZER = "inputs", "forward", "backward", "optimizer"
GRADIENTS = "gradients"
_MOMENTS: dict[str, Moment] = {FORWARD: "forward", LOSS: "loss", TILE: "loss", OPTIMIZER: "optimizer"}
# A moment is kept if it is the highest for some combination of these values.
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536)
_RANKS = (1, 4, 8, 16, 32, 64, 128, 256, 1024)
_REPLAYED_LENGTHS = (256, 1024, 2048, 8192)


class StepRecorder(StorageRecorder):
    """A recorder that also records the loss tile, the only block whose size is not a product."""

    def tile(self) -> None:
        self.passing(1, TILE)


def trace_step(skeleton: Skeleton, recipe: Recipe, step: Step) -> Timeline:
    """Trace a step and return its highest moments.

    Raises:
        Exception: anything, from an architecture that cannot run without data.
    """
    probe = Probe.for_extents(_extents(skeleton))
    model = training_model(skeleton, recipe, step, probe.rank)
    recorder = StepRecorder("meta", workspace_bytes)
    recorder.ignore(resting_tensors(model))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gc.collect()
    gc.disable()
    try:
        with cuda_like(), recorder:
            if step.accumulates:
                recorder.label = BACKWARD
                for parameter in trained:
                    parameter.grad = torch.empty_like(parameter)
            _micro_batch(model, step, probe, recorder)
            recorder.label = OPTIMIZER
            if step.optimizer == "adamw_torch":
                # The unfused optimizer works through lists and keeps two temporary copies of them.
                held = [torch.empty_like(p.grad) for p in trained for _ in range(2) if p.grad is not None]
                del held
            recorder.passing(1, OPTIMIZER)
    finally:
        gc.enable()
    gradients = {recorder.number_of(p.grad) for p in trained if p.grad is not None}
    events = [
        _Event(number, probe.factor(size) if size else None, GRADIENTS if number in gradients else label, label)
        for number, size, label in recorder.events
    ]
    points = _highest(_points(events, step))
    resting = [probe.factor(t.untyped_storage().nbytes()) for t in _distinct(resting_tensors(model))]
    return Timeline(points, tuple(_overheads(events, resting, trained, probe, step, recipe.adapter.r)))


def _micro_batch(
    model: torch.nn.Module, step: Step, probe: Probe, recorder: StepRecorder, device: str = "meta"
) -> None:
    recorder.label = INPUTS
    ids, labels, _mask = (torch.zeros((probe.batch, probe.length), dtype=torch.long, device=device) for _ in range(3))
    recorder.label = FORWARD
    base = model.get_base_model()
    if step.variant == "plain":
        outputs = model(input_ids=ids, labels=labels, use_cache=False)
        recorder.label = BACKWARD
        outputs.loss.backward()
        return
    hidden = _without_head(base)(input_ids=ids, use_cache=False).last_hidden_state
    if step.reads_texts:
        recorder.label = LOSS
        loss = base.score(hidden[:, -1].to(base.score.weight.dtype)).float().sum()
        del hidden
        recorder.label = BACKWARD
        loss.backward()
        return
    head = base.get_output_embeddings()
    # PEFT's wrapper for trained rows has no bias.
    loss = TiledLoss.apply(hidden, head.weight, getattr(head, "bias", None), recorder)
    del hidden
    loss.backward()


def _without_head(model: torch.nn.Module) -> torch.nn.Module:
    """The part of a model that computes its last states; some architectures name themselves as ``base_model``."""
    inner: torch.nn.Module = model.base_model
    if inner is model:
        inner = next((getattr(model, name) for name in ("model", "language_model") if hasattr(model, name)), model)
    return inner if inner is model or not hasattr(inner, "lm_head") else _without_head(inner)


class _Event:
    """A birth (with a size) or a death (without)."""

    __slots__ = ("kind", "label", "number", "size")

    def __init__(self, number: int, size: Monomial | None, kind: str, label: str) -> None:
        self.number = number
        self.size = size
        self.kind = kind
        self.label = label


def _term(kind: str, step: Step) -> str:
    if kind == GRADIENTS:
        return "gradients"
    if kind in (LOSS, TILE):
        return "loss"
    if kind == FORWARD:
        return "saved_activations"
    if kind == BACKWARD and step.checkpointing != "none":
        return "recomputation"
    return "workspace"


def _points(events: list[_Event], step: Step) -> Iterator[Point]:
    """Every moment at which a death follows a birth."""
    now: dict[str, dict[Powers, int]] = {}
    alive: dict[int, tuple[str, Monomial]] = {}
    tiles = 0
    tile_bytes = BYTES_OF[step.compute]
    for place, event in enumerate(events):
        if event.kind == TILE:
            tiles += 1 if event.size else -1
        elif event.size:
            term = _term(event.kind, step)
            alive[event.number] = (term, event.size)
            polynomial = now.setdefault(term, {})
            polynomial[event.size.powers] = polynomial.get(event.size.powers, 0) + event.size.coefficient
        else:
            term, size = alive.pop(event.number)
            now[term][size.powers] -= size.coefficient
            continue
        falls = place + 1 == len(events) or events[place + 1].size is None
        if event.size and falls:
            terms = {name: {p: c for p, c in poly.items() if c} for name, poly in now.items()}
            moment = _MOMENTS.get(event.label, "backward")
            yield Point(moment, {name: poly for name, poly in terms.items() if poly}, tiles * tile_bytes)


def _highest(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points that are the highest of all for some batch, length and rank."""
    import numpy as np

    listed = list(points)
    powers = sorted({p for point in listed for poly in point.terms.values() for p in poly})
    index = {p: place for place, p in enumerate(powers)}
    table = np.zeros((len(listed), len(powers) + 1))
    for row, point in enumerate(listed):
        for poly in point.terms.values():
            for p, c in poly.items():
                table[row, index[p]] += c
        table[row, -1] = point.tile_bytes * TILE_WIDTH
    kept: set[int] = set()
    for rank in _RANKS:
        grid = list(itertools.product(_BATCHES, _LENGTHS))
        values = np.array(
            [[b**i * s**j * rank**k for i, j, k in powers] + [min(b * s, TILE_TOKENS)] for b, s in grid], dtype=float
        )
        kept |= set((values @ table.T).argmax(axis=1).tolist())
    return tuple(listed[row] for row in sorted(kept))


def _overheads(
    events: list[_Event],
    resting: list[Monomial],
    trained: list[torch.nn.Parameter],
    probe: Probe,
    step: Step,
    rank: int,
) -> Iterator[tuple[int, float]]:
    """Reserved ÷ allocated over two optimizer steps, for the recipe's batch and several lengths."""
    states = [probe.factor(p.untyped_storage().nbytes()) for p in trained for _ in range(2)]
    for length in _REPLAYED_LENGTHS:
        allocator = CachingAllocator()
        allocator.replay((("resting", n), size.at(step.batch, length, rank)) for n, size in enumerate(resting))
        for turn in range(2):
            left = _replay(allocator, events, turn, step, length, rank)
            if turn == 0 and step.optimizer in ("adamw_torch", "adamw_torch_fused"):
                allocator.replay((("state", n), size.at(step.batch, length, rank)) for n, size in enumerate(states))
            for name in left:
                allocator.release(name)
        yield step.batch * length, allocator.peak_reserved / allocator.peak_allocated


def _replay(
    allocator: CachingAllocator, events: list[_Event], turn: int, step: Step, length: int, rank: int
) -> list[tuple[int, int]]:
    alive: dict[tuple[int, int], None] = {}
    for event in events:
        name = (turn, event.number)
        if event.size is None:
            if name in alive:
                del alive[name]
                allocator.release(name)
            continue
        size = event.size.at(step.batch, length, rank)
        if event.kind == TILE:
            size = min(step.batch * length, TILE_TOKENS) * TILE_WIDTH * BYTES_OF[step.compute]
        alive[name] = None
        allocator.allocate(name, size)
    return list(alive)


def _distinct(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    seen: set[int] = set()
    for tensor in tensors:
        key = tensor.untyped_storage()._cdata
        if key not in seen:
            seen.add(key)
            yield tensor


def _extents(skeleton: Skeleton) -> set[int]:
    extents = {extent for _, module in skeleton.walk() for t in module.tensors for extent in t.shape}
    return {extent for extent in extents if extent}


def main() -> None:
    """Standard input: ``{"skeleton", "recipe", "device", "variant"}``; output: a timeline, or ``{"error"}``."""
    from workbench.estimate.setup import Setup
    from workbench.machine.device import Device
    from workbench.models.skeleton_json import skeleton_from_json
    from workbench.recipe.resolved import ResolvedRecipe
    from workbench.recipe.text import parse_as

    answer_to, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    request = json.load(sys.stdin)
    skeleton = skeleton_from_json(request["skeleton"])
    recipe = parse_as(ResolvedRecipe, request["recipe"])
    step = plan_step(Setup.of(recipe), Device(**request["device"]), request["variant"])
    answer: TimelineData | TraceFailure
    try:
        answer = trace_step(skeleton, recipe, step).as_json()
    except Exception as error:  # an architecture that needs data in its forward may raise anything
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, answer_to)


if __name__ == "__main__":
    main()
