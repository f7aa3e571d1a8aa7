"""Models of real shapes with random weights, for machines that cannot download any: a folder like the hub's."""

from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.models.build import meta_model
from workbench.models.catalog import catalog_skeleton

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message.role }} {{ message.content }} <|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)


def words_of_first_mate() -> list[str]:
    """The words of the bundled dataset, in its order."""
    text = (Path(__file__).parents[1] / "presets/datasets/first-mate.jsonl").read_text(encoding="utf-8")
    return [word for word in text.split() if word.isalpha()]


def write_random_model(source: str, folder: Path, words: list[str], device: str = "cpu") -> Path:
    """A model of the catalog in bfloat16, with a tokenizer that knows ``words``. Needs its size on disk and in memory.

    Args:
        device: where the weights are drawn.

    Raises:
        WorkbenchError: it is not in the catalog.
    """
    import torch

    skeleton = catalog_skeleton(source)
    if skeleton is None:
        raise WorkbenchError(f"{source} is not in the catalog.", "Name one that is.")
    torch.manual_seed(0)
    model = meta_model(skeleton.config).to(torch.bfloat16).to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            randomise(parameter)
    model.tie_weights()
    model.save_pretrained(folder)
    word_tokenizer(words).save_pretrained(folder)
    return folder


def randomise(tensor: Any) -> Any:
    """Norms are ones and everything else is small: nothing overflows, and int8 finds no outliers."""
    return tensor.fill_(1) if tensor.dim() < 2 else tensor.uniform_(-0.02, 0.02)


def word_tokenizer(words: list[str]) -> Any:
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "user", "assistant", "system", *sorted(set(words))]
    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(dict.fromkeys(known))}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<|im_end|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
