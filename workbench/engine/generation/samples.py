"""The same few prompts answered again and again during a run, so that one sees the model change."""

from dataclasses import dataclass
from typing import Any

from workbench.data.sample import IGNORED
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.tokenizer import pad_token_id

_PROMPTS = 3
_NEW_TOKENS = 64


@dataclass(frozen=True)
class SampledReply:
    prompt: str
    reply: str


def sample_replies(base: LoadedBase, records: Any) -> list[SampledReply]:
    """Greedy replies to the prompts of the first records; the model is left as it was found.

    Args:
        records: a data set with ``input_ids`` and ``labels``; a record's prompt is what stands before its first trained
            token.
    """
    import torch

    model = base.active
    was_training = model.training
    model.eval()
    replies = []
    try:
        with torch.inference_mode():
            for record in records.select(range(min(_PROMPTS, len(records)))):
                prompt = _prompt(record["input_ids"], record["labels"])
                output = model.generate(
                    input_ids=torch.tensor([prompt], device=base.device),
                    attention_mask=torch.ones((1, len(prompt)), dtype=torch.long, device=base.device),
                    max_new_tokens=_NEW_TOKENS,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=pad_token_id(base.tokenizer),
                )
                decode = base.tokenizer.decode
                replies.append(
                    SampledReply(
                        decode(prompt, skip_special_tokens=True),
                        decode(output[0, len(prompt) :], skip_special_tokens=True),
                    )
                )
    finally:
        model.train(was_training)
    return replies


def _prompt(ids: list[int], labels: list[int]) -> list[int]:
    """Tokens before the reply; of a text that is trained from its start, the first quarter."""
    reply = next((place for place, label in enumerate(labels) if label != IGNORED), 0)
    return ids[:reply] if reply > 1 else ids[: max(len(ids) // 4, 1)]
