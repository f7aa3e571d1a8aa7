"""TRL's head that never holds all logits, without the entropy that TRL's trainer asks for and nobody here reads."""

from typing import Any


def head_without_entropy(model: Any) -> None:
    """Let a causal language model take ``fused_lm_head=True``, in place of a head that TRL's trainer put on.

    It is an attribute of this one model object, named ``forward``.
    """
    from trl.trainer.utils import add_fused_lm_head

    model.__dict__.pop("forward", None)
    add_fused_lm_head(model, outputs=("log_probs", "is_top1"))
