"""Loads a model's tokenizer with its chat template, also where the template belongs to the model's processor."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "image_processor_config.json",
    "feature_extractor_config.json",
)
"""Files of the processor of a model that also reads images or audio, beside its tokenizer and chat template."""


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer in a model folder.

    Raises:
        Exception: what transformers raises for files that it cannot read.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if not tokenizer.chat_template and (template := _template_of_processor(folder)):
        tokenizer.chat_template = template
    return tokenizer


def _template_of_processor(folder: Path) -> str:
    """The template that older processors keep in a file of their own; empty if there is none."""
    for name in ("chat_template.json", "processor_config.json"):
        try:
            saved = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        template = saved.get("chat_template") if isinstance(saved, dict) else None
        if isinstance(template, str):
            return template
    return ""


def pad_token_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The tokenizer's padding id, else its end-of-text id, else 0: padding is masked out, so any id works."""
    return int(next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None))
