"""Finds the Jinja source that a recipe's ``data.template`` names."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.templates.named import NAMED
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_NAME = "instruction-response"
# The name that transformers gives to a tokenizer's only template, and to the one that it uses by default.
_DEFAULT_OF_MODEL = "default"


def own_templates(tokenizer: "PreTrainedTokenizerBase") -> dict[str, str]:
    """The chat templates that come with a tokenizer, by name; mostly one, named ``default``."""
    own = getattr(tokenizer, "chat_template", None)
    if not isinstance(own, dict):
        own = {_DEFAULT_OF_MODEL: own}
    return {name: source for name, source in own.items() if source}


def own_template(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """The chat template that a tokenizer uses by default; None if it has none at all.

    Raises:
        WorkbenchError: it has several, none of which is the default.
    """
    own = own_templates(tokenizer)
    if len(own) == 1:
        return next(iter(own.values()))
    if own and _DEFAULT_OF_MODEL not in own:
        raise WorkbenchError(
            f"The model has the chat templates {', '.join(own)}, and none of them is its default.",
            "Set data.template to the name of one.",
            kind="template",
        )
    return own.get(_DEFAULT_OF_MODEL)


def begin_of_sequence(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The begin-of-sequence token where this tokenizer puts one before a text by itself, else nothing."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token if tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id] else ""


def named_source(tokenizer: "PreTrainedTokenizerBase", name: str) -> tuple[str, list[str]]:
    """A named template's source for this tokenizer, with its begin and end of sequence, and notices about it."""
    notices = []
    end = tokenizer.eos_token or ""
    if name.startswith("chatml"):
        if "<|im_end|>" in tokenizer.added_tokens_encoder:
            end = "<|im_end|>"
        else:
            end = "<|im_end|>" + end
            notices.append("This tokenizer has no ChatML tokens: <|im_start|> and <|im_end|> are encoded as text.")
    begin = begin_of_sequence(tokenizer)
    header = f"{{%- set end = {json.dumps(end)} %}}{{{{- {json.dumps(begin)} }}}}"
    return header + NAMED[name], notices


def with_ends(tokenizer: "PreTrainedTokenizerBase", source: str) -> str:
    """Jinja that uses ``begin`` or ``end`` without setting them, with the tokenizer's begin and end of sequence."""
    values = {"begin": begin_of_sequence(tokenizer), "end": tokenizer.eos_token or ""}
    needed = [name for name in values if re.search(rf"\{{\{{-? {name}\b|\+ {name}\b", source)]
    return "".join(f"{{%- set {name} = {json.dumps(values[name])} %}}" for name in needed) + source


def custom_source(name: str, own: Iterable[str] = ()) -> str:
    """The source in a ``.jinja`` file, or ``name`` itself where it is Jinja.

    Args:
        own: names of the model's templates, for the error.

    Raises:
        WorkbenchError: it is neither, or the file cannot be read.
    """
    if "{{" in name or "{%" in name:
        return name
    path = Path(name).expanduser()
    if path.suffix in (".jinja", ".jinja2", ".j2"):
        try:
            return path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise WorkbenchError(
                f"Cannot read the template {name}: {one_line(error)}.", "Give a readable .jinja file.", kind="template"
            ) from None
    raise WorkbenchError(
        f"Unknown template {name!r}.",
        f"Choose auto, {', '.join([*(name for name in own if name != _DEFAULT_OF_MODEL), *NAMED])}, a .jinja file, or "
        "write Jinja.",
        kind="template",
    )


def one_line(error: Exception) -> str:
    """An error's message on one line, shortened to 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
