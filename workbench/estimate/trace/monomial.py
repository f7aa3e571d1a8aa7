"""Tensor sizes as c · batch^i · length^j · rank^k, found from one run with prime values for the three."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

Powers = tuple[int, int, int]
"""Exponents of batch, length and rank."""


class Monomial(NamedTuple):
    """A size as coefficient times powers of batch, length and rank."""

    coefficient: int
    powers: Powers

    def at(self, batch: int, length: int, rank: int) -> int:
        """The size for these values."""
        i, j, k = self.powers
        return int(self.coefficient * batch**i * length**j * rank**k)


@dataclass(frozen=True)
class Probe:
    """Primes used as batch, length and rank in the traced run. None may divide a dimension of the model."""

    batch: int
    length: int
    rank: int

    @classmethod
    def for_extents(cls, extents: Iterable[int]) -> "Probe":
        """Choose primes that divide none of the model's dimensions, so that factors of a size are unambiguous."""
        taken = set(extents)

        def free(candidates: tuple[int, ...]) -> int:
            return next(prime for prime in candidates if not any(extent % prime == 0 for extent in taken))

        return cls(
            batch=free((103, 113, 127, 137, 149)),
            length=free((1009, 1013, 1019, 1021, 1031)),
            rank=free((107, 109, 131, 139, 151)),
        )

    def factor(self, size: int) -> Monomial:
        """Factor a size from the traced run into a function of batch, length and rank."""
        powers = [0, 0, 0]
        for place, prime in enumerate((self.batch, self.length, self.rank)):
            while size % prime == 0:
                size //= prime
                powers[place] += 1
        return Monomial(size, (powers[0], powers[1], powers[2]))
