"""One record as token ids and labels."""

from array import array
from dataclasses import dataclass

from workbench.data.records.unused import Unused

# Labels of tokens that are not trained; PyTorch's cross entropy leaves them out.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Sample:
    """One record as it is fed: cut at ``max_length``. ``length`` is before the cut.

    ``changes``: what was done to its turns, in words. ``unused``: its fields that are not fed.
    ``problem``: why it was skipped; then there are no tokens. A sample whose ``trained`` is all False lost its reply.
    """

    index: int
    where: str
    input_ids: list[int]
    trained: list[bool]
    length: int
    held_out: bool = False
    apart: bool = False
    changes: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()
    problem: str = ""

    @property
    def trained_tokens(self) -> int:
        return sum(self.trained)

    @property
    def digest(self) -> int:
        """Equal for equal tokens, within one process."""
        return hash(array("I", self.input_ids).tobytes())

    @property
    def labels(self) -> list[int]:
        """The ids of trained tokens, :data:`IGNORED` elsewhere."""
        return [token if use else IGNORED for token, use in zip(self.input_ids, self.trained, strict=True)]
