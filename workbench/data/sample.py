"""The sample: one tokenized record, with the tokens to train on marked."""

from array import array
from dataclasses import dataclass

from workbench.data.records.unused import Unused

# The label of tokens that are not trained on, which PyTorch's cross entropy ignores.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Sample:
    """One tokenized record, or one chunk of a document, limited to ``max_length``.

    Attributes:
        trained: for each token, whether it is trained on. If none is, truncation removed the reply.
        length: tokens before truncation.
        held_out, from_eval_split: as in :class:`~workbench.data.sources.Item`.
        changes: what was changed in its turns, as text for the user.
        unused: its fields that are not used for training.
        problem: why the record was skipped; then there are no tokens.
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

    @property
    def trained_tokens(self) -> int:
        return sum(self.trained)

    @property
    def digest(self) -> int:
        """A hash of the tokens, for comparison within one process."""

        return hash(array("I", self.input_ids).tobytes())

    @property
    def labels(self) -> list[int]:
        """The ids of trained tokens, :data:`IGNORED` elsewhere."""
        return [token if use else IGNORED for token, use in zip(self.input_ids, self.trained, strict=True)]
