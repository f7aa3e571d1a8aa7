"""The ways in which a model's loss can be computed, and how a model is prepared for one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from workbench.engine.kernels.loss_head import TrainedTokensCollator


@dataclass(frozen=True)
class LossPath:
    """How batches are laid out, and how the loss of their trained tokens is computed.

    Attributes:
        padding_free: records lie in one row (:mod:`workbench.engine.kernels.padding_free`); otherwise they are padded.
        in_tiles: the output layer is applied in tiles, without holding logits
            (:mod:`workbench.engine.kernels.loss_head`); otherwise the logits are the model's own.
        one_record: each record is computed by itself, so that no batch is ever padded.
    """

    padding_free: bool = True
    in_tiles: bool = True
    one_record: bool = False

    def __str__(self) -> str:
        """The path as it is recorded in a journal, as in ``padding-free`` or ``padded, model's own logits``."""
        layout = "one record at a time" if self.one_record else "padding-free" if self.padding_free else "padded"
        return layout if self.in_tiles else f"{layout}, {_OWN_LOGITS}"

    @classmethod
    def recorded(cls, text: object) -> "LossPath | None":
        """The path that a journal names; None if it names none."""
        return next((path for path in PATHS if str(path) == text), None)

    def collator(self, padding: int) -> "TrainedTokensCollator":
        """The collator for this layout. Imports torch and TRL."""
        from workbench.engine.kernels.loss_head import TrainedTokensCollator

        return TrainedTokensCollator(padding, padding_free=self.padding_free)

    def enable(self, model: "PreTrainedModel", label_smoothing: float = 0.0) -> Callable[[], None]:
        """Make a model accept ``fused_lm_head=True`` with batches of :meth:`collator`; returns how to undo it.

        ``label_smoothing`` is used in training.

        One with a head of its own also accepts ``sequence_ends`` (:mod:`workbench.engine.kernels.sequence_head`).
        """
        from workbench.engine.kernels.loss_head import LossHead
        from workbench.engine.kernels.padding_free import enable_padding_free
        from workbench.engine.kernels.sequence_head import SequenceScores, has_head

        head = LossHead(model, in_tiles=self.in_tiles, label_smoothing=label_smoothing)
        scores = SequenceScores(model) if has_head(model) else None
        apart = enable_padding_free(model) if self.padding_free else None

        def undo() -> None:
            if apart is not None:
                apart()
            if scores is not None:
                scores.remove()
            head.remove()

        return undo


_OWN_LOGITS = "model's own logits"
PADDED = LossPath(padding_free=False)
PATHS = (
    LossPath(),
    LossPath(in_tiles=False),
    PADDED,
    LossPath(padding_free=False, in_tiles=False),
    LossPath(padding_free=False, one_record=True),
    LossPath(padding_free=False, in_tiles=False, one_record=True),
)
