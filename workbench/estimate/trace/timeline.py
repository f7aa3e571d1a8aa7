"""The result of tracing a step: the few moments that can be its peak, as polynomials in batch, length and rank."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NotRequired, TypedDict, final

from workbench.estimate.peak import Moment
from workbench.estimate.trace.lengths import Extent
from workbench.estimate.trace.monomial import Monomial, Powers, values_at
from workbench.estimate.trace.tape import TILE_TOKENS, TILE_WIDTH, Tape, TapeData

FORMAT = 1


class PointData(TypedDict):
    """A :class:`Point` as JSON data: each monomial is [coefficient, powers of batch, length and rank]."""

    moment: Moment
    terms: dict[str, list[list[int]]]
    tile: int


class EvaluationData(TypedDict):
    """An :class:`Evaluation` as JSON data."""

    losses: list[PointData]
    prompt: list[PointData]
    cache: PointData | None


@final
class TimelineData(TypedDict):
    """A :class:`Timeline` as JSON data."""

    format: int
    points: list[PointData]
    overhead: list[list[float]]
    tape: NotRequired[TapeData]
    extents: NotRequired[list[list[int]]]
    evaluation: NotRequired[EvaluationData]


@final
class TraceFailure(TypedDict):
    """The answer of the tracing process if a step cannot be traced."""

    error: str


@dataclass(frozen=True)
class Point:
    """A moment of the step: the coefficients of the monomials of each term.

    ``tile_bytes`` is the size of an element of the loss tile, the only block with a maximum size: it has
    min(tokens, 4096) × 32768 elements.
    """

    moment: Moment
    terms: Mapping[str, Mapping[Powers, int]]
    tile_bytes: int = 0

    def at(self, batch: int, length: int, rank: int, extents: tuple[Extent, ...] = ()) -> dict[str, int]:
        """Bytes by term, without the resting memory."""
        if extents:
            values = values_at(batch, length, rank, extents)
            out = {
                name: sum(Monomial(c, powers).at(values) for powers, c in polynomial.items())
                for name, polynomial in self.terms.items()
            }
        else:
            out = {
                name: sum(c * batch**i * length**j * rank**k for (i, j, k), c in polynomial.items())
                for name, polynomial in self.terms.items()
            }
        if self.tile_bytes:
            tile = min(batch * length, TILE_TOKENS) * TILE_WIDTH * self.tile_bytes
            out["loss"] = out.get("loss", 0) + tile
        return out

    def as_json(self) -> PointData:
        terms = {
            name: [[c, *powers] for powers, c in polynomial.items()] for name, polynomial in self.terms.items()
        }  # fmt: skip
        return {"moment": self.moment, "terms": terms, "tile": self.tile_bytes}

    @classmethod
    def from_json(cls, data: PointData) -> "Point":
        terms = {
            name: {tuple(powers): c for c, *powers in listed} for name, listed in data["terms"].items()
        }  # fmt: skip
        return cls(data["moment"], terms, data["tile"])


@dataclass(frozen=True)
class Evaluation:
    """The highest moments of what a run computes without gradients.

    Attributes:
        losses: of a batch of held-out records.
        prompt: of the first pass over the prompt of a reply, by itself; empty where no replies are sampled.
        cache: the keys and values that are left after it.
    """

    losses: tuple[Point, ...]
    prompt: tuple[Point, ...] = ()
    cache: Point | None = None

    def bytes_at(self, batch: int, length: int, rank: int, extents: tuple[Extent, ...], more: int) -> int:
        """The highest of these moments, without the resting memory.

        Args:
            more: tokens of a reply. A layer's part of the cache is copied for each; that copy is not counted.
        """
        at = [sum(point.at(batch, length, rank, extents).values()) for point in self.losses]
        at += [sum(point.at(1, length, rank, extents).values()) for point in self.prompt]
        if self.cache is not None:
            at.append(sum(self.cache.at(1, length + more, rank, extents).values()))
        return max(at)

    def as_json(self) -> EvaluationData:
        return {
            "losses": [point.as_json() for point in self.losses],
            "prompt": [point.as_json() for point in self.prompt],
            "cache": None if self.cache is None else self.cache.as_json(),
        }

    @classmethod
    def from_json(cls, data: EvaluationData) -> "Evaluation":
        losses = tuple(Point.from_json(point) for point in data["losses"])
        prompt = tuple(Point.from_json(point) for point in data["prompt"])
        return cls(losses, prompt, None if data["cache"] is None else Point.from_json(data["cache"]))


@dataclass(frozen=True)
class Timeline:
    """The highest moments of a step, and the allocator's overhead.

    ``overhead`` lists (tokens, reserved ÷ allocated), sorted by tokens, from replays of all allocations, for figures
    that must be there at once. ``packed`` is the tape of all allocations, which is unpacked when it is needed.
    ``extents`` is what else depends on the length in this model. ``evaluation`` has the moments of an evaluation
    between steps; None where it was not traced.
    """

    points: tuple[Point, ...]
    overhead: tuple[tuple[int, float], ...]
    packed: TapeData | None = field(default=None, compare=False)
    extents: tuple[Extent, ...] = ()
    evaluation: Evaluation | None = None

    @cached_property
    def tape(self) -> Tape | None:
        """All allocations; None for a timeline that was kept without them."""
        return None if self.packed is None else Tape.from_json(self.packed, self.extents)

    def highest(self, batch: int, length: int, rank: int) -> tuple[Point, dict[str, int]]:
        """The highest moment for these values, with its bytes by term."""
        at = [(point, point.at(batch, length, rank, self.extents)) for point in self.points]
        return max(at, key=lambda pair: sum(pair[1].values()))

    def overhead_at(self, tokens: int) -> float:
        """Reserved ÷ allocated, interpolated between the replayed numbers of tokens on a logarithmic scale."""
        before = self.overhead[0]
        for after in self.overhead:
            if tokens <= after[0]:
                if after[0] == before[0]:
                    return after[1]
                share = math.log(tokens / before[0]) / math.log(after[0] / before[0])
                return before[1] + (after[1] - before[1]) * max(0.0, share)
            before = after
        return before[1]

    def as_json(self) -> TimelineData:
        data: TimelineData = {
            "format": FORMAT,
            "points": [point.as_json() for point in self.points],
            "overhead": [list(pair) for pair in self.overhead],
        }
        if self.packed is not None:
            data["tape"] = self.packed
        if self.extents:
            data["extents"] = [list(extent) for extent in self.extents]
        if self.evaluation is not None:
            data["evaluation"] = self.evaluation.as_json()
        return data

    @classmethod
    def from_json(cls, data: TimelineData) -> "Timeline":
        """Raises:
        ValueError: written by another version.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"timeline in format {data.get('format')!r}, expected {FORMAT}")
        points = tuple(Point.from_json(point) for point in data["points"])
        overhead = tuple((int(tokens), float(ratio)) for tokens, ratio in data["overhead"])
        extents = tuple(Extent(*extent) for extent in data.get("extents", ()))
        evaluation = Evaluation.from_json(data["evaluation"]) if "evaluation" in data else None
        return cls(points, overhead, data.get("tape"), extents, evaluation)
