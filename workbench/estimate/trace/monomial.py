"""Tensor sizes as c · batch^i · length^j · rank^k, found from one run with prime values for the three.

Where other extents depend on the length (:mod:`.lengths`), their powers follow these three.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from workbench.estimate.trace.lengths import Extent, probe_length

Powers = tuple[int, ...]
"""Exponents of batch, length and rank, and of a model's other extents."""


class Monomial(NamedTuple):
    """A size as coefficient times powers of batch, length and rank, and of other extents."""

    coefficient: int
    powers: Powers

    def at(self, values: Iterable[int]) -> int:
        """The size for values of batch, length, rank and the other extents."""
        return int(self.coefficient * math.prod(value**power for value, power in zip(values, self.powers, strict=True)))


def values_at(batch: int, length: int, rank: int, extents: Iterable[Extent] = ()) -> tuple[int, ...]:
    """What the powers of a monomial belong to, for these sizes."""
    return (batch, length, rank, *(extent.at(length) for extent in extents))


@dataclass(frozen=True)
class Probe:
    """Primes used as batch, length and rank in the traced run. None may divide a dimension of the model."""

    batch: int
    length: int
    rank: int
    extents: tuple[Extent, ...] = ()

    @classmethod
    def for_extents(cls, dimensions: Iterable[int], extents: tuple[Extent, ...] = ()) -> "Probe":
        """Choose primes that divide none of the model's dimensions, so that factors of a size are unambiguous.

        Args:
            extents: what else depends on the length in this model.
        """
        taken = set(dimensions)
        length = probe_length(extents, taken)
        taken |= {extent.at(length) for extent in extents}

        def free(candidates: tuple[int, ...]) -> int:
            return next(prime for prime in candidates if not any(extent % prime == 0 for extent in taken))

        return cls(free((103, 113, 127, 137, 149)), length, free((107, 109, 131, 139, 151)), extents)

    @property
    def values(self) -> tuple[int, ...]:
        return values_at(self.batch, self.length, self.rank, self.extents)

    def factor(self, size: int) -> Monomial:
        """Factor a size from the traced run into a function of batch, length and rank."""
        values = self.values
        powers = [0] * len(values)
        for place, value in enumerate(values):
            while size % value == 0:
                size //= value
                powers[place] += 1
        return Monomial(size, tuple(powers))
