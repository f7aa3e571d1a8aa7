"""Writes a tokenizer as SentencePiece's ``tokenizer.model``, which llama.cpp's converter reads.

transformers 5 does not save that file. Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path

from workbench.export.gguf.vocabulary import Vocabulary

# Types of tokens, the same numbers in SentencePiece and in GGUF.
_UNKNOWN, _USER_DEFINED = 2, 4
# Fields of the messages, with the way their values are written: 0 a number, 2 bytes, 5 a float.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK, _ADD_DUMMY_PREFIX = 3, 35, 3
_BPE = 2


def write_tokenizer_model(vocabulary: Vocabulary, folder: Path) -> None:
    """Write ``tokenizer.model``, and ``added_tokens.json`` for the tokens that are found before any merge.

    Args:
        vocabulary: one whose model is ``llama``.
    """
    message = bytearray()
    types = list(vocabulary.types)
    types[vocabulary.ids["unknown"]] = _UNKNOWN
    for token, score, kind in zip(vocabulary.tokens, vocabulary.scores, types, strict=True):
        piece = _bytes(_PIECE, token.encode()) + _float(_SCORE, score) + _number(_TYPE, kind)
        message += _bytes(_PIECES, piece)
    message += _bytes(_TRAINER, _number(_MODEL_TYPE, _BPE) + _number(_BYTE_FALLBACK, 1))
    message += _bytes(_NORMALIZER, _number(_ADD_DUMMY_PREFIX, int(vocabulary.adds_space)))
    (folder / "tokenizer.model").write_bytes(message)
    added = {
        token: place
        for place, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind == _USER_DEFINED
    }
    if added:
        (folder / "added_tokens.json").write_text(json.dumps(added, ensure_ascii=False), encoding="utf-8")


def can_be_written(vocabulary: Vocabulary) -> bool:
    """Whether SentencePiece accepts the vocabulary: a BPE with an unknown token and no empty or repeated token."""
    tokens: Sequence[str] = vocabulary.tokens
    is_known = vocabulary.model == "llama" and "unknown" in vocabulary.ids
    return is_known and all(tokens) and len(set(tokens)) == len(tokens)


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)
