"""Sizes as c · batch^i · length^j · rank^k, read off a single run with prime values for the three."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

Powers = tuple[int, int, int]
"""Exponents of batch, length and rank."""


class Monomial(NamedTuple):
    coefficient: int
    powers: Powers

    def at(self, batch: int, length: int, rank: int) -> int:
        i, j, k = self.powers
        return int(self.coefficient * batch**i * length**j * rank**k)


@dataclass(frozen=True)
class Probe:
    """Primes that stand for batch, length and rank. None may divide an extent of the model itself."""

    batch: int
    length: int
    rank: int

    @classmethod
    def for_extents(cls, extents: Iterable[int]) -> "Probe":
        """Primes that divide none of the model's own extents, so that a factor of a size tells where it comes from."""
        taken = set(extents)

        def free(candidates: tuple[int, ...]) -> int:
            return next(prime for prime in candidates if not any(extent % prime == 0 for extent in taken))

        return cls(
            batch=free((103, 113, 127, 137, 149)),
            length=free((1009, 1013, 1019, 1021, 1031)),
            rank=free((107, 109, 131, 139, 151)),
        )

    def factor(self, size: int) -> Monomial:
        """A size that was seen under this probe, as a function of batch, length and rank."""
        powers = [0, 0, 0]
        for place, prime in enumerate((self.batch, self.length, self.rank)):
            while size % prime == 0:
                size //= prime
                powers[place] += 1
        return Monomial(size, (powers[0], powers[1], powers[2]))
