"""Traces one training step of a recipe on the meta device and keeps its highest moments. Imports torch.

Runs in a separate process (:func:`main`): a request as JSON on standard input, a timeline as JSON on standard output.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

import torch

from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.estimate.step import Step, plan_step
from workbench.estimate.trace.evaluation import trace_evaluation
from workbench.estimate.trace.lengths import Extent, extents_of, needs_check
from workbench.estimate.trace.micro_batch import StepRecorder, autocast_of, recording, run_micro_batch
from workbench.estimate.trace.monomial import Monomial, Probe, values_at
from workbench.estimate.trace.on_meta import resting_tensors, training_model
from workbench.estimate.trace.points import (
    BACKWARD,
    EARLIER,
    GRADIENTS,
    HANDLE,
    OPTIMIZER,
    TILE,
    Event,
    highest_points,
    points_of,
)
from workbench.estimate.trace.replay import Resting, replayed
from workbench.estimate.trace.tape import CARRIED, Tape
from workbench.estimate.trace.timeline import Evaluation, Timeline, TimelineData, TraceFailure
from workbench.layers.host_checkpoints import HostCheckpoints
from workbench.layers.tiled_mlp import PIECES, TiledMlps
from workbench.models.skeleton import Skeleton
from workbench.recipe.schema import Recipe

_REPLAYED = ((1, 256), (1, 512), (1, 1024), (1, 2048), (4, 1024), (4, 2048))
_REPLAYED_RANK = 16
_SECOND_LENGTH = 787
"""Tokens at which sizes are checked where layers other than attention read the sequence; no multiple of a chunk."""


def trace_step(skeleton: Skeleton, recipe: Recipe, step: Step) -> Timeline:
    """Trace a step and return its highest moments.

    Raises:
        Exception: anything, from an architecture that cannot run without data.
    """
    extents = extents_of(skeleton.config) + ((Extent(0, PIECES, 0),) if step.tiles else ())
    probe = Probe.for_extents(_extents(skeleton), extents)
    model = training_model(skeleton, recipe, step, probe.rank)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    autocast = autocast_of(model, step)
    recorder = _recorded(model, trained, step, probe, autocast)
    gradients = {recorder.number_of(p.grad) for p in trained if p.grad is not None}
    events = [
        Event(number, probe.factor(size) if size else None, GRADIENTS if number in gradients else label, label)
        for number, size, label in recorder.events
    ]
    tape = replace(_tape(events, step), extents=extents)
    resting = [probe.factor(t.untyped_storage().nbytes()) for t in _distinct(resting_tensors(model))]
    states = [probe.factor(p.untyped_storage().nbytes()) for p in trained for _ in range(2)]
    for parameter in trained:
        parameter.grad = None
    if needs_check(skeleton.config):
        other = replace(probe, length=_SECOND_LENGTH)
        _check(events, _recorded(model, trained, step, other, autocast).events, other)
        for parameter in trained:
            parameter.grad = None
    overhead = tuple(_overheads(tape, resting, states, step))
    return Timeline(
        highest_points(points_of(events, step), extents),
        overhead,
        tape.as_json(),
        extents,
        _evaluation(model, step, probe, autocast),
    )


def _evaluation(
    model: torch.nn.Module, step: Step, probe: Probe, autocast: AbstractContextManager[object]
) -> Evaluation | None:
    """The evaluation between steps; None where the model can be trained without data, but not asked for a reply."""
    try:
        return trace_evaluation(model, step, probe, autocast)
    except Exception:  # as in main
        return None


def _recorded(
    model: torch.nn.Module,
    trained: Sequence[torch.nn.Parameter],
    step: Step,
    probe: Probe,
    autocast: AbstractContextManager[object],
) -> StepRecorder:
    """A step of the sizes of ``probe``, recorded."""
    with recording(model) as recorder:
        if step.accumulates:
            recorder.label = BACKWARD
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
        with layers_as_computed(model, step, autocast):
            recorder.held = run_micro_batch(model, step, probe, recorder, autocast)
        recorder.label = OPTIMIZER
        if step.optimizer == "adamw_torch":
            # The unfused optimizer works through lists and keeps two temporary copies of them.
            lists = [torch.empty_like(p.grad) for p in trained for _ in range(2) if p.grad is not None]
            del lists
        recorder.passing(1, OPTIMIZER)
    return recorder


def layers_as_computed(
    model: torch.nn.Module, step: Step, autocast: AbstractContextManager[object], host: HostCheckpoints | None = None
) -> ExitStack:
    """The context in which layers compute a step as a run does: in pieces, and from checkpoints on the host."""
    stack = ExitStack()
    if step.offloads:
        stack.enter_context((host or HostCheckpoints(model)).active())
    if step.tiles:
        stack.enter_context(TiledMlps(model, lambda: autocast).active())
    return stack


def _check(events: list[Event], second: list[tuple[int, int, str]], probe: Probe) -> None:
    """Check that the sizes of the first run give those of a second one at another length.

    Raises:
        ValueError: they do not, as where a layer loops over the chunks of a sequence.
    """
    values = probe.values
    if len(events) != len(second):
        raise ValueError("the number of its tensors depends on the record length")
    for event, (_, size, _) in zip(events, second, strict=True):
        if (event.size.at(values) if event.size else 0) != size:
            raise ValueError("sizes of its tensors depend on the record length in an unknown way")


def _tape(events: list[Event], step: Step) -> Tape:
    """All events, with blocks numbered in the order in which they are allocated."""
    places: dict[Monomial, int] = {}
    blocks: dict[int, int] = {}
    moves: list[tuple[int, int]] = []
    gradients: list[int] = []
    tile, handle = -2, -3
    for event in events:
        if event.kind == HANDLE:
            if event.size is not None:
                blocks[event.number] = len(blocks)
                moves.append((blocks[event.number], handle))
        elif event.kind == EARLIER:
            if event.size is None:
                moves.append((CARRIED, -1))
        elif event.size is None:
            moves.append((blocks[event.number], -1))
        else:
            blocks[event.number] = len(blocks)
            if event.kind == GRADIENTS:
                gradients.append(blocks[event.number])
            place = tile if event.kind == TILE else places.setdefault(event.size, len(places))
            moves.append((blocks[event.number], place))
    special = {tile: len(places), handle: len(places) + 1}
    listed = tuple((number, special.get(place, place)) for number, place in moves)
    return Tape(tuple(places), listed, tuple(gradients), BYTES_OF[step.compute])


def _overheads(tape: Tape, base: list[Monomial], states: list[Monomial], step: Step) -> Iterator[tuple[int, float]]:
    """Reserved ÷ allocated after three steps, for batches of one text and of four. No recipe's sizes play a part."""
    has_states = step.optimizer in ("adamw_torch", "adamw_torch_fused")
    for batch, length in _REPLAYED:
        sizes = (batch, length, _REPLAYED_RANK)
        values = values_at(*sizes, tape.extents)
        loading = [(place, size.at(values)) for place, size in enumerate(base)]
        own = [size.at(values) for size in states] if has_states else []
        allocator = replayed(tape, Resting(loading, (), own, step.workspace), (sizes,) * 3)
        yield batch * length, allocator.peak_reserved / allocator.peak_allocated


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
