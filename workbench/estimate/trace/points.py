"""The moments of a recorded step that can be its peak, as polynomials in batch, length and rank."""

import itertools
from collections.abc import Iterable, Iterator

from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.estimate.peak import Moment
from workbench.estimate.step import Step
from workbench.estimate.trace.lengths import Extent
from workbench.estimate.trace.monomial import Monomial, Powers, values_at
from workbench.estimate.trace.tape import TILE_TOKENS, TILE_WIDTH
from workbench.estimate.trace.timeline import Point

INPUTS, FORWARD, BACKWARD, OPTIMIZER = "inputs", "forward", "backward", "optimizer"
LOSS, TILE = "loss", "loss tile"
"""``TILE`` labels the only block whose size does not grow in proportion: see :class:`Timeline`."""
GRADIENTS, LOGITS, EARLIER = "gradients", "logits", "earlier logits"
HANDLE = "cuBLAS handle"
"""Labels the moment of the backward pass at which its thread makes a handle of its own, with a workspace."""
_MOMENTS: dict[str, Moment] = {
    FORWARD: "forward", EARLIER: "forward", LOGITS: "loss", LOSS: "loss", TILE: "loss", OPTIMIZER: "optimizer"
}  # fmt: skip
# A moment is kept if it is the highest for some combination of these values.
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536)
_RANKS = (1, 4, 8, 16, 32, 64, 128, 256, 1024)


class Event:
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


def points_of(events: list[Event], step: Step) -> Iterator[Point]:
    """Every moment at which a death follows a birth."""
    now: dict[str, dict[Powers, int]] = {}
    alive: dict[int, tuple[str, Monomial]] = {}
    tiles = 0
    tile_bytes = BYTES_OF[step.compute]
    for place, event in enumerate(events):
        if event.kind == HANDLE:
            continue
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


def left_over(events: list[Event], step: Step) -> Point:
    """What is still there after the last event."""
    alive = {event.number: event for event in events if event.size}
    for event in events:
        if event.size is None:
            del alive[event.number]
    terms: dict[str, dict[Powers, int]] = {}
    for event in alive.values():
        assert event.size is not None
        polynomial = terms.setdefault(_term(event.kind, step), {})
        polynomial[event.size.powers] = polynomial.get(event.size.powers, 0) + event.size.coefficient
    return Point("forward", terms)


def highest_points(points: Iterable[Point], extents: tuple[Extent, ...]) -> tuple[Point, ...]:
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
