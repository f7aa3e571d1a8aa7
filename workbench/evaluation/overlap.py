"""Scores a reply against a reference reply: exact match, containment and ROUGE-L."""

import re
import unicodedata
from collections.abc import Sequence

# Scripts without spaces between words: Thai, Lao, Khmer, kana, Han. Each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def is_exact(reply: str, reference: str) -> bool:
    """Whether reply and reference are the same text, ignoring white space."""
    return reply.split() == reference.split()


def contains(reply: str, reference: str) -> bool:
    """Whether the reply contains the reference, ignoring case and white space."""
    expected = " ".join(reference.casefold().split())
    return bool(expected) and expected in " ".join(reply.casefold().split())


def rouge_l(reply: str, reference: str) -> float:
    """ROUGE-L of a reply, 0 to 1: the F-measure (β = 1) of the longest common subsequence of words (Lin 2004, §3.1).

    Words are sequences of letters and digits of any script, compared without case or stemming.
    """
    reply_words, reference_words = words(reply), words(reference)
    common = _common_subsequence(reply_words, reference_words)
    return 2 * common / (len(reply_words) + len(reference_words)) if common else 0.0


def words(text: str) -> list[str]:
    """Split a text into the words that :func:`rouge_l` compares."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence; each row of the table is one integer's bits (Hyyrö 2004)."""
    positions: dict[str, int] = {}
    for position, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << position
    mask = (1 << len(first)) - 1
    row = mask
    for word in second:
        matches = row & positions.get(word, 0)
        row = ((row + matches) | (row - matches)) & mask
    return len(first) - row.bit_count()
