"""Stores a curve of any length in constant memory by averaging neighboring points."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

CAPACITY = 2048
"""A series stores fewer buckets than this."""


class Bucket(NamedTuple):
    """Neighboring points of a curve combined: mean, minimum and maximum."""

    mean: float
    low: float
    high: float


class Series:
    """Points (x, y) with increasing x, stored as at most :data:`CAPACITY` buckets of equally many points.

    When all buckets are used, neighbors are merged in pairs, so that adding a point takes constant time on average.
    Each bucket stores its minimum and maximum, so that a single spike among a million points stays visible.

    Attributes:
        count: points added.
        stride: points per bucket.
        last: the newest point; None without points.
    """

    def __init__(self, points: Iterable[tuple[float, float]] = ()) -> None:
        self.count = 0
        self.stride = 1
        self.last: tuple[float, float] | None = None
        self._xs: list[float] = []
        self._firsts: list[float] = []
        self._means: list[float] = []
        self._lows: list[float] = []
        self._highs: list[float] = []
        self._in_last = 0
        for x, y in points:
            self.add(x, y)

    def add(self, x: float, y: float) -> None:
        """Add a point; one that is not finite is ignored."""
        if not math.isfinite(y):
            return
        self.count += 1
        self.last = (x, y)
        if 0 < self._in_last < self.stride:
            self._in_last += 1
            share = 1 / self._in_last
            self._xs[-1] += (x - self._xs[-1]) * share
            self._means[-1] += (y - self._means[-1]) * share
            self._lows[-1] = min(self._lows[-1], y)
            self._highs[-1] = max(self._highs[-1], y)
            return
        if len(self._xs) == CAPACITY:
            self._halve()
        self._xs.append(x)
        self._firsts.append(x)
        self._means.append(y)
        self._lows.append(y)
        self._highs.append(y)
        self._in_last = 1

    def extend(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Add points, faster than one by one; those that are not finite are ignored."""
        if not all(map(math.isfinite, ys)):
            pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
            xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
        at, end = 0, len(xs)
        while at < end:
            if self._in_last in (0, self.stride):
                self.add(xs[at], ys[at])
                at += 1
                continue
            to = min(end, at + self.stride - self._in_last)
            before, self._in_last = self._in_last, self._in_last + to - at
            self._xs[-1] = (self._xs[-1] * before + sum(xs[at:to])) / self._in_last
            self._means[-1] = (self._means[-1] * before + sum(ys[at:to])) / self._in_last
            self._lows[-1] = min(self._lows[-1], *ys[at:to])
            self._highs[-1] = max(self._highs[-1], *ys[at:to])
            self.count += to - at
            at = to
            self.last = (xs[at - 1], ys[at - 1])

    def cut(self, x: float) -> None:
        """Remove the points after ``x``.

        The points of a bucket that contains ``x`` are assumed to be evenly spaced, as steps are; what remains of it
        keeps the mean and the extremes of the whole bucket.
        """
        while self._firsts and self._firsts[-1] > x:
            self.count -= self._in_last
            for values in (self._xs, self._firsts, self._means, self._lows, self._highs):
                values.pop()
            # All buckets but the last are full.
            self._in_last = self.stride if self._firsts else 0
        if not self._firsts:
            self.last = None
            return
        first, end = self._firsts[-1], 2 * self._xs[-1] - self._firsts[-1]
        if end > x:
            spacing = (end - first) / (self._in_last - 1)
            remaining = min(self._in_last, int((x - first) / spacing + 1e-6) + 1)
            self.count -= self._in_last - remaining
            self._in_last, end = remaining, first + (remaining - 1) * spacing
            self._xs[-1] = (first + end) / 2
        if self.last is not None and self.last[0] > x:
            self.last = (end, self._means[-1])

    def __bool__(self) -> bool:
        return self.count > 0

    def __len__(self) -> int:
        """Number of buckets."""
        return len(self._xs)

    @property
    def mean_range(self) -> tuple[float, float]:
        """The smallest and the largest bucket mean. The series must not be empty."""
        return min(self._means), max(self._means)

    def points(self) -> list[tuple[float, float]]:
        """The buckets as points."""
        return list(zip(self._xs, self._means, strict=True))

    def along(self, other: "Series", unit: float = 1) -> "Series":
        """The same y over another x, which ``other`` maps from this x: for example loss over tokens instead of steps.

        Args:
            other: the new x by this x, increasing from 0 at 0; interpolated linearly between its buckets.
            unit: the new x is divided by this.
        """
        xs, ys = [0.0, *other._xs], [0.0, *other._means]
        if other.last is not None:
            xs.append(other.last[0])
            ys.append(other.last[1])

        def mapped(x: float) -> float:
            right = bisect_left(xs, x)
            if right == 0 or right == len(xs) or xs[right] == x:
                return ys[min(right, len(xs) - 1)] / unit
            share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
            return (ys[right - 1] + share * (ys[right] - ys[right - 1])) / unit

        moved = Series()
        moved.count, moved.stride, moved._in_last = self.count, self.stride, self._in_last
        moved.last = (mapped(self.last[0]), self.last[1]) if self.last is not None else None
        moved._xs, moved._firsts = [mapped(x) for x in self._xs], [mapped(x) for x in self._firsts]
        moved._means, moved._lows, moved._highs = self._means[:], self._lows[:], self._highs[:]
        return moved

    def smoothed(self, span: int) -> "Series":
        """The same points with exponentially weighted means, as over ``span`` points, in place of their values.

        Earlier values do not depend on later ones, so a growing curve keeps its shape. The first values are corrected
        for the missing past (Kingma & Ba 2015, section 3).
        """
        keep = (1 - 2 / (span + 1)) ** self.stride
        moved, mean, weight = self.along(Series()), 0.0, 0.0
        moved._xs, moved._firsts, moved.last = self._xs[:], self._firsts[:], self.last
        for index, value in enumerate(self._means):
            mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
            moved._means[index] = moved._lows[index] = moved._highs[index] = mean / weight
        return moved

    def at(self, x: float, *, before: bool = False) -> float | None:
        """The value of the point nearest to ``x``, or of the last one up to it; None without one."""
        if self.last is None:
            return None
        if x >= self.last[0]:
            return self.last[1]
        right = bisect_left(self._xs, x)
        if before:
            index = right if right < len(self._xs) and self._xs[right] == x else right - 1
            return self._means[index] if index >= 0 else None
        near = [index for index in (right - 1, right) if 0 <= index < len(self._xs)]
        return self._means[min(near, key=lambda index: abs(self._xs[index] - x))]

    def mapped(self, value: Callable[[float], float]) -> "Series":
        """The same points with each value replaced by an increasing function of it."""
        moved = self.along(Series())
        moved._xs, moved._firsts, moved.last = self._xs[:], self._firsts[:], self.last
        moved._means, moved._lows, moved._highs = (
            [value(one) for one in values] for values in (self._means, self._lows, self._highs)
        )
        return moved

    def columns(self, low: float, high: float, count: int) -> dict[int, Bucket]:
        """Rebin into ``count`` equal columns of ``[low, high]``, by column number; empty columns are left out."""
        by_column: dict[int, Bucket] = {}
        width = (high - low) / count
        at, end = bisect_left(self._xs, low), len(self._xs)
        while at < end and self._xs[at] <= high:
            column = min(count - 1, int((self._xs[at] - low) / width)) if width else 0
            # The last column includes its right edge.
            edge = low + (column + 1) * width if column < count - 1 else math.nextafter(high, math.inf)
            to = max(at + 1, bisect_left(self._xs, edge, at, end))
            means = self._means[at:to]
            by_column[column] = Bucket(sum(means) / len(means), min(self._lows[at:to]), max(self._highs[at:to]))
            at = to
        return by_column

    def _halve(self) -> None:
        """Merge neighboring buckets in pairs."""
        for values in (self._xs, self._means):
            values[:] = [(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=True)]
        self._firsts = self._firsts[::2]
        self._lows = list(map(min, self._lows[::2], self._lows[1::2]))
        self._highs = list(map(max, self._highs[::2], self._highs[1::2]))
        self.stride *= 2
