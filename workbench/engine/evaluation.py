"""Loss on records the model was not trained on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.engine.base import LoadedBase
from workbench.engine.hardware import free_cached_memory
from workbench.engine.memory import is_out_of_memory
from workbench.engine.protocol import Progress


@dataclass(frozen=True)
class HeldOutLoss:
    """``loss``: mean negative log-likelihood in nats over ``tokens`` labelled tokens, weighted by token."""

    loss: float
    tokens: int
    correct: int

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def token_accuracy(self) -> float:
        """Share of tokens that were the model's first choice."""
        return self.correct / self.tokens


def held_out_loss(
    base: LoadedBase,
    records: Any,
    batch_size: int,
    report: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> HeldOutLoss | None:
    """Evaluate what is active on ``base``. None when cancelled, or when no token is labelled.

    Args:
        records: a dataset with ``input_ids`` and ``labels`` (-100 where a token is not counted).
        batch_size: records at once. The logits are never held whole (TRL's fused head), so that an evaluation needs no
            more memory than a training step of the same batch.
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=pad_token_id(base.tokenizer))
    # Records of like length share a batch: less padding.
    order = sorted(range(len(records)), key=lambda index: len(records[index]["input_ids"]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    model = base.active
    was_training = model.training
    total, tokens, correct = 0.0, 0, 0
    model.eval()
    try:
        with base.fused_head(), torch.inference_mode():
            for done, batch in enumerate(batches):
                if cancelled():
                    return None
                report(Progress(phase="evaluating", fraction=done / len(batches)))
                figures = _figures(base, model, collate, [records[index] for index in batch])
                total, tokens, correct = total + figures[0], tokens + figures[1], correct + figures[2]
    finally:
        model.train(was_training)
    return HeldOutLoss(total / tokens, tokens, correct) if tokens else None


def _figures(base: LoadedBase, model: Any, collate: Any, batch: list[Any]) -> tuple[float, int, int]:
    """Summed loss, labelled tokens and right first choices of a batch; in halves where it does not fit in memory."""
    try:
        inputs = {name: tensor.to(base.device) for name, tensor in collate(batch).items()}
        output = model(**inputs, use_cache=False, fused_lm_head=True)
        right = int(output.is_top1.sum().item())
        return -output.log_probs.sum().item(), int(output.label_mask.sum().item()), right
    except Exception as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    free_cached_memory()
    half = len(batch) // 2
    first, second = (_figures(base, model, collate, part) for part in (batch[:half], batch[half:]))
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


def pad_token_id(tokenizer: Any) -> int:
    """Any id will do where padding is masked out of attention and labels."""
    return int(next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None))
