"""A tokenizer in the words of GGUF: tokens, their kinds, merges or scores, and how text is cut before merging.

Key names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The names of the ways to cut text are llama.cpp's
(``src/llama-vocab.cpp``): a file that names none, or a wrong one, is tokenised in a way that the model has never seen.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import WorkbenchError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"

# The regular expression of a tokenizer's pre-tokenizer, and llama.cpp's name for that way to cut.
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_SPLITS = {
    _WORDS + r"|\p{N}" + _REST: "qwen2",
    _WORDS + r"|\p{N}{1,3}" + _REST: "llama-bpe",
    f"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*"
    + r"|\p{N}"
    + _REST.replace("\\r\\n]*", "\\r\\n/]*"): "tekken",
}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer. ``scores`` is for SentencePiece's kind (``llama``), ``merges`` for GPT-2's.

    ``ids``: the special tokens, by GGUF's names for them.
    """

    model: str
    tokens: list[str]
    types: list[int]
    pre: str = "default"
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    adds_bos: bool = False
    adds_eos: bool = False
    adds_space: bool = False
    template: str = ""


def vocabulary_of(tokenizer: Any, ends: Sequence[int], chat_template: str, rows: int) -> Vocabulary:
    """The vocabulary, filled up with unused tokens to the ``rows`` of the model's embeddings.

    Args:
        ends: tokens that end a reply in the template of training.
        chat_template: that template as Jinja.

    Raises:
        WorkbenchError: the tokenizer is of a kind that is not known here.
    """
    backend = _backend(tokenizer)
    kind = backend["model"]
    pairs = kind["vocab"]
    tokens, types = _tokens(tokenizer, pairs, rows)
    common: dict[str, Any] = {
        "tokens": tokens,
        "types": types,
        "ids": _special_ids(tokenizer, ends),
        "adds_bos": _adds(tokenizer, 0, tokenizer.bos_token_id),
        "adds_eos": _adds(tokenizer, -1, tokenizer.eos_token_id),
        "template": chat_template,
    }
    if kind.get("byte_fallback"):
        types = [_BYTE if _BYTE_TOKEN.fullmatch(token) else found for token, found in zip(tokens, types, strict=True)]
        scores = _scores(tokens, kind["merges"])
        return Vocabulary("llama", **{**common, "types": types}, scores=scores, adds_space=_adds_space(backend))
    merges = [" ".join(_merge(pair)) for pair in kind["merges"]]
    return Vocabulary("gpt2", **common, pre=_pre(backend), merges=merges)


def _backend(tokenizer: Any) -> dict[str, Any]:
    """The tokenizer as the ``tokenizers`` library writes it down."""
    rust = getattr(tokenizer, "backend_tokenizer", None)
    found = json.loads(rust.to_str()) if rust is not None else {}
    if (found.get("model") or {}).get("type") != "BPE":
        raise _unknown(f"a tokenizer of kind {(found.get('model') or {}).get('type') or type(tokenizer).__name__}")
    return dict(found)


def _tokens(tokenizer: Any, vocabulary: dict[str, int], rows: int) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{place}]" for place in range(rows)]
    types = [_UNUSED] * rows
    added = tokenizer.added_tokens_decoder
    highest = max([*vocabulary.values(), *added], default=-1)
    if highest >= rows:
        raise WorkbenchError(
            f"The tokenizer has token {highest}, but the model has only {rows} embeddings.",
            "The tokenizer belongs to another model; use the base's own.",
            kind="gguf_unsupported",
        )
    for token, place in vocabulary.items():
        tokens[place], types[place] = token, _NORMAL
    for place, token in added.items():
        tokens[place], types[place] = token.content, _CONTROL if token.special else _USER_DEFINED
    if tokenizer.unk_token_id is not None and types[tokenizer.unk_token_id] == _NORMAL:
        types[tokenizer.unk_token_id] = _UNKNOWN
    return tokens, types


def _special_ids(tokenizer: Any, ends: Sequence[int]) -> dict[str, int]:
    """``eot``: what ends a reply in the template of training, where that is not the end of sequence."""
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
        "eot": next((end for end in ends if end != tokenizer.eos_token_id), None),
    }
    return {name: int(place) for name, place in ids.items() if place is not None}


def _adds(tokenizer: Any, place: int, token: int | None) -> bool:
    """Whether the tokenizer puts this token at a place of every text by itself."""
    ids = tokenizer("a")["input_ids"]
    return token is not None and len(ids) > 1 and ids[place] == token


def _merge(pair: Any) -> list[str]:
    return list(pair) if isinstance(pair, list | tuple) else str(pair).split(" ", 1)


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """SentencePiece merges the neighbours with the highest score first: a token's is minus the rank of its merge.

    A token that several merges make has the rank of the first.
    """
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(_merge(pair)), rank)
    return [-float(ranks[token]) if token in ranks else 0.0 for token in tokens]


def _adds_space(backend: dict[str, Any]) -> bool:
    """Whether a text gets a space before its first word."""
    for part in _parts(backend.get("normalizer"), "normalizers"):
        if part["type"] == "Prepend" and part.get("prepend") == _SPACE:
            return True
    return any(
        part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never"
        for part in _parts(backend.get("pre_tokenizer"), "pretokenizers")
    )


def _pre(backend: dict[str, Any]) -> str:
    """llama.cpp's name for how this tokenizer cuts text before merging."""
    if backend.get("normalizer") is not None and backend["normalizer"].get("type") != "NFC":
        raise _unknown(f"a tokenizer with an unsupported normalizer ({backend['normalizer'].get('type')})")
    parts = _parts(backend.get("pre_tokenizer"), "pretokenizers")
    match [part["type"] for part in parts]:
        case ["ByteLevel"] if parts[0].get("use_regex", True) and not parts[0].get("add_prefix_space"):
            return "gpt-2"
        case ["Digits", "ByteLevel"] if parts[0].get("individual_digits") and parts[1].get("use_regex", True):
            return "smollm"
        case ["Split", "ByteLevel"]:
            expression = parts[0].get("pattern", {}).get("Regex", "")
            if expression in _SPLITS and parts[0].get("behavior") == "Isolated":
                return _SPLITS[expression]
    raise _unknown("a tokenizer with an unsupported pre-tokenizer")


def _parts(step: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return list(step[name]) if step.get("type") == "Sequence" else [step]


def _unknown(what: str) -> WorkbenchError:
    return WorkbenchError(
        f"This model has {what}, which cannot be exported as GGUF.",
        "Export it as `merged` and run llama.cpp's convert_hf_to_gguf.py on that folder.",
        kind="gguf_unsupported",
    )
