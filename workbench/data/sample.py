"""The sample: one tokenized record, with the tokens to train on marked. One of a pair has two token sequences."""

from array import array
from dataclasses import dataclass

from workbench.data.records.unused import Unused

# The label of tokens that are not trained on, which PyTorch's cross entropy ignores.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as tokens, limited to ``max_length``: which of them are trained on, and their number before truncation."""

    input_ids: list[int]
    trained: list[bool]
    length: int

    @property
    def labels(self) -> list[int]:
        """The ids of trained tokens, :data:`IGNORED` elsewhere."""
        return [token if use else IGNORED for token, use in zip(self.input_ids, self.trained, strict=True)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One tokenized record, or one chunk of a document, limited to ``max_length``.

    ``input_ids``, ``trained`` and ``length`` are those of its text; of a pair, those of the chosen side.

    Attributes:
        trained: for each token, whether it is trained on. If none is, truncation removed the reply.
        length: tokens before truncation.
        held_out, from_eval_split: as in :class:`~workbench.data.sources.Item`.
        changes: what was changed in its turns, as text for the user.
        unused: its fields that are not used for training.
        problem: why the record was skipped; then there are no tokens.
        rejected: the rejected side of a pair; None for other records.
        good: whether an unpaired response is good; None for other records.
        label: of a text for classification; None for other records.
    """

    index: int
    where: str
    input_ids: list[int]
    trained: list[bool]
    length: int
    held_out: bool = False
    from_eval_split: bool = False
    changes: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()
    problem: str = ""
    rejected: Tokens | None = None
    good: bool | None = None
    label: str | None = None

    @property
    def sides(self) -> tuple[Tokens, ...]:
        """The text of the record; of a pair, the chosen and the rejected one."""
        own = Tokens(self.input_ids, self.trained, self.length)
        return (own,) if self.rejected is None else (own, self.rejected)

    @property
    def labels(self) -> list[int]:
        """The ids of trained tokens, :data:`IGNORED` elsewhere."""
        return self.sides[0].labels

    @property
    def trained_tokens(self) -> int:
        """Tokens to train on; 0 if one side of a pair has none."""
        if self.rejected is None:
            return sum(self.trained)
        counts = [sum(side.trained) for side in self.sides]
        return sum(counts) if all(counts) else 0

    @property
    def digest(self) -> int:
        """A hash of the tokens, for comparison within one process."""

        if self.rejected is None:
            return hash((array("I", self.input_ids).tobytes(), self.good, self.label))
        return hash(tuple(array("I", side.input_ids).tobytes() for side in self.sides))
