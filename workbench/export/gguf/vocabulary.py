"""Converts a tokenizer to GGUF's vocabulary: tokens, token types, merges or scores, and the pre-tokenizer's name.

Key names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The names of pre-tokenizers are llama.cpp's
(``src/llama-vocab.cpp``); with a wrong one, text would be tokenized differently than in training.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import WorkbenchError
from workbench.export.gguf.support import USE_CONVERTER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"

TokenizerJson = dict[str, Any]
"""A part of ``tokenizer.json``, or the whole of it."""

# The parts of the regular expressions in _SPLITS.
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
# llama.cpp's names of pre-tokenizers, by their regular expression.
_SPLITS = {
    _WORDS + r"|\p{N}" + _REST: "qwen2",
    _WORDS + r"|\p{N}{1,3}" + _REST: "llama-bpe",
    f"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*"
    + r"|\p{N}"
    + _REST.replace("\\r\\n]*", "\\r\\n/]*"): "tekken",
}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as described in a GGUF file.

    Attributes:
        model: ``llama`` for SentencePiece tokenizers, with ``scores``; ``gpt2`` for others, with ``merges``.
        pre: llama.cpp's name of the pre-tokenizer.
        ids: special tokens by their GGUF name.
        adds_bos, adds_eos, adds_space: what the tokenizer adds to every text.
        template: the chat template, as Jinja.
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


def vocabulary_of(
    tokenizer: "PreTrainedTokenizerBase", end_tokens: Sequence[int], chat_template: str, rows: int
) -> Vocabulary:
    """Convert a tokenizer to a GGUF vocabulary.

    Args:
        end_tokens: ids of the tokens that end a reply in the training template.
        chat_template: the training template, as Jinja.
        rows: rows of the model's embeddings; the vocabulary is padded with unused tokens to this size.

    Raises:
        WorkbenchError: this kind of tokenizer is not supported.
    """
    backend = _backend(tokenizer)
    kind = backend["model"]
    pairs = kind["vocab"]
    tokens, types = _tokens(tokenizer, pairs, rows)
    vocabulary = Vocabulary(
        "gpt2",
        tokens,
        types,
        ids=_special_ids(tokenizer, end_tokens),
        adds_bos=_adds(tokenizer, 0, tokenizer.bos_token_id),
        adds_eos=_adds(tokenizer, -1, tokenizer.eos_token_id),
        template=chat_template,
    )
    if kind.get("byte_fallback"):
        types = [_BYTE if _BYTE_TOKEN.fullmatch(token) else type_ for token, type_ in zip(tokens, types, strict=True)]
        scores = _scores(tokens, kind["merges"])
        return replace(vocabulary, model="llama", types=types, scores=scores, adds_space=_adds_space(backend))
    merges = [" ".join(_merge(pair)) for pair in kind["merges"]]
    return replace(vocabulary, pre=_pre_tokenizer_name(backend), merges=merges)


def kind_of_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> Literal["sentencepiece", "byte-level", "other"]:
    """How a tokenizer works: BPE with byte tokens for what it does not know, BPE on bytes, or something else."""
    model = _serialized(tokenizer).get("model") or {}
    if model.get("type") != "BPE":
        return "other"
    return "sentencepiece" if model.get("byte_fallback") else "byte-level"


def _serialized(tokenizer: "PreTrainedTokenizerBase") -> TokenizerJson:
    """The content of ``tokenizer.json``; an empty dict for a tokenizer that has none."""
    rust = getattr(tokenizer, "backend_tokenizer", None)
    serialized: TokenizerJson = json.loads(rust.to_str()) if rust is not None else {}
    return serialized


def _backend(tokenizer: "PreTrainedTokenizerBase") -> TokenizerJson:
    """The tokenizer in the format of ``tokenizer.json``."""
    backend = _serialized(tokenizer)
    kind = (backend.get("model") or {}).get("type")
    if kind != "BPE":
        raise _unsupported(f"a tokenizer of kind {kind or type(tokenizer).__name__}")
    return backend


def _tokens(tokenizer: "PreTrainedTokenizerBase", vocabulary: dict[str, int], rows: int) -> tuple[list[str], list[int]]:
    """The token and the token type of every row."""
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


def _special_ids(tokenizer: "PreTrainedTokenizerBase", end_tokens: Sequence[int]) -> dict[str, int]:
    """The special tokens by GGUF name. ``eot`` ends a reply in the training template, if that is not ``eos``."""
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
        "eot": next((token for token in end_tokens if token != tokenizer.eos_token_id), None),
    }
    return {name: int(place) for name, place in ids.items() if place is not None}


def _adds(tokenizer: "PreTrainedTokenizerBase", place: int, token: int | None) -> bool:
    """Whether the tokenizer adds this token to every text, at its start (place 0) or its end (place -1)."""
    ids = tokenizer("a")["input_ids"]
    return token is not None and len(ids) > 1 and ids[place] == token


def _merge(pair: str | Sequence[str]) -> list[str]:
    """The two parts of a merge, which older tokenizers store as one string."""
    return list(pair) if isinstance(pair, list | tuple) else str(pair).split(" ", 1)


def _scores(tokens: list[str], merges: Sequence[str | Sequence[str]]) -> list[float]:
    """SentencePiece scores that reproduce the order of the merges: minus the rank of the first merge into a token.

    SentencePiece merges the neighbors with the highest score first.
    """
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(_merge(pair)), rank)
    return [-float(ranks[token]) if token in ranks else 0.0 for token in tokens]


def _adds_space(backend: TokenizerJson) -> bool:
    """Whether the tokenizer adds a space before the first word of a text."""
    for part in _parts(backend.get("normalizer"), "normalizers"):
        if part["type"] == "Prepend" and part.get("prepend") == _SPACE:
            return True
    return any(
        part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never"
        for part in _parts(backend.get("pre_tokenizer"), "pretokenizers")
    )


def _pre_tokenizer_name(backend: TokenizerJson) -> str:
    """llama.cpp's name of the pre-tokenizer."""
    if backend.get("normalizer") is not None and backend["normalizer"].get("type") != "NFC":
        raise _unsupported(f"a tokenizer with an unsupported normalizer ({backend['normalizer'].get('type')})")
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
    raise _unsupported("a tokenizer with an unsupported pre-tokenizer")


def _parts(step: TokenizerJson | None, name: str) -> list[TokenizerJson]:
    """The members of a sequence of normalizers or pre-tokenizers; a single one as a list of one."""
    if step is None:
        return []
    return list(step[name]) if step.get("type") == "Sequence" else [step]


def _unsupported(what: str) -> WorkbenchError:
    return WorkbenchError(
        f"This model has {what}, which cannot be exported as GGUF.",
        USE_CONVERTER,
        kind="gguf_unsupported",
    )
