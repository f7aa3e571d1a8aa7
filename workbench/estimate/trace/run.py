"""Traces one training step of a recipe on the meta device and keeps its highest moments. Imports torch.

Runs in a separate process (:func:`main`): a request as JSON on standard input, a timeline as JSON on standard output.
"""

import gc
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.estimate.peak import CUBLAS_WORKSPACE, Moment
from workbench.estimate.step import Step, plan_step
from workbench.estimate.trace.autocast import CudaAutocast
from workbench.estimate.trace.head import LOSS, TILE, TiledLoss
from workbench.estimate.trace.kernels import cuda_like, workspace_bytes
from workbench.estimate.trace.lengths import Extent, extents_of, needs_check
from workbench.estimate.trace.monomial import Monomial, Powers, Probe, values_at
from workbench.estimate.trace.on_meta import resting_tensors, training_model
from workbench.estimate.trace.recorder import StorageRecorder
from workbench.estimate.trace.replay import Resting, replayed
from workbench.estimate.trace.tape import CARRIED, TILE_TOKENS, TILE_WIDTH, Tape
from workbench.estimate.trace.timeline import Point, Timeline, TimelineData, TraceFailure
from workbench.layers.host_checkpoints import HostCheckpoints
from workbench.layers.tiled_mlp import PIECES, TiledMlps
from workbench.models.skeleton import Skeleton
from workbench.recipe.schema import Recipe

INPUTS, FORWARD, BACKWARD, OPTIMIZER = "inputs", "forward", "backward", "optimizer"
GRADIENTS, LOGITS, EARLIER = "gradients", "logits", "earlier logits"
_MOMENTS: dict[str, Moment] = {
    FORWARD: "forward", EARLIER: "forward", LOGITS: "loss", LOSS: "loss", TILE: "loss", OPTIMIZER: "optimizer"
}  # fmt: skip
# A moment is kept if it is the highest for some combination of these values.
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536)
_RANKS = (1, 4, 8, 16, 32, 64, 128, 256, 1024)
_REPLAYED = ((1, 256), (1, 512), (1, 1024), (1, 2048), (4, 1024), (4, 2048))
_REPLAYED_RANK = 16
_SECOND_LENGTH = 787
"""Tokens at which sizes are checked where layers other than attention read the sequence; no multiple of a chunk."""


class StepRecorder(StorageRecorder):
    """A recorder that also records the loss tile, the only block whose size is not a product.

    ``held`` is what the training loop holds of a step until the next one has replaced it.
    """

    held: Sequence[object] = ()

    def tile(self) -> None:
        self.passing(1, TILE)


def trace_step(skeleton: Skeleton, recipe: Recipe, step: Step) -> Timeline:
    """Trace a step and return its highest moments.

    Raises:
        Exception: anything, from an architecture that cannot run without data.
    """
    extents = extents_of(skeleton.config) + ((Extent(0, PIECES, 0),) if step.tiles else ())
    probe = Probe.for_extents(_extents(skeleton), extents)
    model = training_model(skeleton, recipe, step, probe.rank)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    autocast = _autocast(model, step)
    recorder = _recorded(model, trained, step, probe, autocast)
    gradients = {recorder.number_of(p.grad) for p in trained if p.grad is not None}
    events = [
        _Event(number, probe.factor(size) if size else None, GRADIENTS if number in gradients else label, label)
        for number, size, label in recorder.events
    ]
    tape = replace(_tape(events, step), extents=extents)
    resting = [probe.factor(t.untyped_storage().nbytes()) for t in _distinct(resting_tensors(model))]
    states = [probe.factor(p.untyped_storage().nbytes()) for p in trained for _ in range(2)]
    if needs_check(skeleton.config):
        for parameter in trained:
            parameter.grad = None
        other = replace(probe, length=_SECOND_LENGTH)
        _check(events, _recorded(model, trained, step, other, autocast).events, other)
    overhead = tuple(_overheads(tape, resting, states, step))
    return Timeline(_highest(_points(events, step), extents), overhead, tape.as_json(), extents)


def _recorded(
    model: torch.nn.Module,
    trained: Sequence[torch.nn.Parameter],
    step: Step,
    probe: Probe,
    autocast: AbstractContextManager[object],
) -> StepRecorder:
    """A step of the sizes of ``probe``, recorded."""
    recorder = StepRecorder("meta", workspace_bytes)
    recorder.ignore(resting_tensors(model))
    gc.collect()
    gc.disable()
    try:
        with cuda_like(), recorder:
            if step.accumulates:
                recorder.label = BACKWARD
                for parameter in trained:
                    parameter.grad = torch.empty_like(parameter)
            with layers_as_computed(model, step, autocast):
                recorder.held = _micro_batch(model, step, probe, recorder, autocast)
            recorder.label = OPTIMIZER
            if step.optimizer == "adamw_torch":
                # The unfused optimizer works through lists and keeps two temporary copies of them.
                lists = [torch.empty_like(p.grad) for p in trained for _ in range(2) if p.grad is not None]
                del lists
            recorder.passing(1, OPTIMIZER)
    finally:
        gc.enable()
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


def _check(events: list["_Event"], second: list[tuple[int, int, str]], probe: Probe) -> None:
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


def _micro_batch(
    model: torch.nn.Module,
    step: Step,
    probe: Probe,
    recorder: StepRecorder,
    autocast: AbstractContextManager[object],
    device: str = "meta",
) -> list[object]:
    """One micro-batch; returns what the loop still holds of it when the optimizer runs."""
    recorder.label = INPUTS
    ids, labels, mask = (torch.zeros((probe.batch, probe.length), dtype=torch.long, device=device) for _ in range(3))
    inputs = {"input_ids": ids, "use_cache": False}
    if step.is_masked:
        inputs["attention_mask"] = mask
    run = _plain if step.variant == "plain" and not step.reads_texts else _tiled
    return run(model, step, inputs, labels, recorder, autocast)


def _tiled(
    model: torch.nn.Module,
    step: Step,
    inputs: dict[str, Any],
    labels: torch.Tensor,
    recorder: StepRecorder,
    autocast: AbstractContextManager[object],
) -> list[object]:
    """The workbench's step: never all logits; for classification none, only a head on the last state of each text."""
    base = model.get_base_model()
    recorder.label = FORWARD
    with autocast:
        hidden = _without_head(base)(**inputs).last_hidden_state
        if step.reads_texts:
            recorder.label = LOSS
            loss = base.score(hidden[:, -1].to(base.score.weight.dtype)).float().sum()
            recorder.label = BACKWARD
        else:
            head = base.get_output_embeddings()
            # PEFT's wrapper for trained rows has no bias.
            loss = TiledLoss.apply(hidden, head.weight, getattr(head, "bias", None), recorder)
            if step.smooths:
                # As `lead_of_targets` of the loss head.
                recorder.label = LOSS
                loss = loss + (hidden.float() * torch.empty_like(hidden, dtype=torch.float32)).sum(-1).sum()
                recorder.label = BACKWARD
    del hidden
    loss.backward()
    return []


def _plain(
    model: torch.nn.Module,
    step: Step,
    inputs: dict[str, Any],
    labels: torch.Tensor,
    recorder: StepRecorder,
    autocast: AbstractContextManager[object],
) -> list[object]:
    """``model(…, labels=…).loss.backward()``, of ``Trainer`` or of a loop that keeps the outputs."""
    base = model.get_base_model()
    earlier = _logits_before(base, step, labels, recorder) if step.keeps_outputs else None
    recorder.label = FORWARD
    with _labeled_loss(base, recorder), autocast:
        outputs = model(**inputs, labels=labels)
    del earlier
    loss = outputs.loss
    if not step.keeps_outputs:
        if step.autocast:
            # accelerate returns outputs in float32 (``convert_outputs_to_fp32``).
            outputs.logits = outputs.logits.float()
        del outputs
    recorder.label = LOSS
    loss.backward()
    return [labels, loss, outputs] if step.keeps_outputs else []


def _logits_before(base: torch.nn.Module, step: Step, labels: torch.Tensor, recorder: StepRecorder) -> torch.Tensor:
    """The logits of the step before."""
    recorder.label = EARLIER
    head = base.get_output_embeddings()
    dtype = getattr(torch, step.autocast) if step.autocast else head.weight.dtype
    return torch.empty((*labels.shape, head.weight.shape[0]), dtype=dtype, device=labels.device)


@contextmanager
def _labeled_loss(base: torch.nn.Module, recorder: StepRecorder) -> Iterator[None]:
    """Within this context, what the output layer and the loss allocate is labeled so, forward and backward."""
    head = base.get_output_embeddings()

    def enter(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        recorder.label = LOGITS
        if inputs[0].requires_grad:
            inputs[0].register_hook(leave)

    def leave(_: torch.Tensor) -> None:
        recorder.label = BACKWARD

    def loss(*args: Any, **kwargs: Any) -> Any:
        recorder.label = LOSS
        return plain_loss(*args, **kwargs)

    plain_loss = base.loss_function
    handle = head.register_forward_pre_hook(enter)
    base.loss_function = loss
    try:
        yield
    finally:
        handle.remove()
        base.loss_function = plain_loss


def _autocast(model: torch.nn.Module, step: Step) -> AbstractContextManager[object]:
    """The step's autocast; checkpointed layers enter it when they are computed again, as torch's checkpointing does."""
    if not step.autocast:
        return nullcontext()
    autocast = CudaAutocast(getattr(torch, step.autocast))

    def checkpointed(checkpoint: Callable[..., Any], layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def run(*values: Any, **named: Any) -> Any:
            with autocast:
                return layer(*values, **named)

        return checkpoint(run, *args, **kwargs)

    for module in model.modules():
        if hasattr(module, "_gradient_checkpointing_func"):
            module._gradient_checkpointing_func = partial(checkpointed, module._gradient_checkpointing_func)
    return autocast


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
    if kind in (LOGITS, EARLIER):
        return "logits"
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


def _highest(points: Iterable[Point], extents: tuple[Extent, ...]) -> tuple[Point, ...]:
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
            [
                [Monomial(1, p).at(values_at(b, s, rank, extents)) for p in powers] + [min(b * s, TILE_TOKENS)]
                for b, s in grid
            ],
            dtype=float,
        )
        kept |= set((values @ table.T).argmax(axis=1).tolist())
    return tuple(listed[row] for row in sorted(kept))


def _tape(events: list[_Event], step: Step) -> Tape:
    """All events, with blocks numbered in the order in which they are allocated."""
    places: dict[Monomial, int] = {}
    blocks: dict[int, int] = {}
    moves: list[tuple[int, int]] = []
    gradients: list[int] = []
    tile = -2
    for event in events:
        if event.kind == EARLIER:
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
    listed = tuple((number, len(places) if place == tile else place) for number, place in moves)
    return Tape(tuple(places), listed, tuple(gradients), BYTES_OF[step.compute])


def _overheads(tape: Tape, base: list[Monomial], states: list[Monomial], step: Step) -> Iterator[tuple[int, float]]:
    """Reserved ÷ allocated after three steps, for batches of one text and of four. No recipe's sizes play a part."""
    has_states = step.optimizer in ("adamw_torch", "adamw_torch_fused")
    for batch, length in _REPLAYED:
        sizes = (batch, length, _REPLAYED_RANK)
        values = values_at(*sizes, tape.extents)
        loading = [(place, size.at(values)) for place, size in enumerate(base)]
        own = [size.at(values) for size in states] if has_states else []
        allocator = replayed(tape, Resting(loading, (), own, CUBLAS_WORKSPACE // 2), (sizes,) * 3)
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
