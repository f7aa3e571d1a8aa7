"""Puts TRL's fused language-model head on a model: it computes token log-probabilities without holding all logits.

TRL's trainer also asks that head for the entropy, which nothing here reads.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_fused_head(model: "PreTrainedModel") -> None:
    """Make a causal language model accept ``fused_lm_head=True``; replaces a head that TRL's trainer put on.

    The head is the ``forward`` attribute of this one model object.
    """
    from trl.trainer.utils import add_fused_lm_head

    model.__dict__.pop("forward", None)
    add_fused_lm_head(model, outputs=("log_probs", "is_top1"))
