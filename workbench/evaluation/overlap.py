"""How near a reply comes to a reference reply: the same, holding it, or sharing its words in order."""

import re
import unicodedata
from collections.abc import Sequence

# Scripts that put no space between words: Thai, Lao, Khmer, kana, Han. Each character counts as a word there.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def is_exact(reply: str, reference: str) -> bool:
    """Whether both are the same text, white space aside."""
    return reply.split() == reference.split()


def contains(reply: str, reference: str) -> bool:
    """Whether the reference stands in the reply, in any case, white space aside."""
    found = " ".join(reference.casefold().split())
    return bool(found) and found in " ".join(reply.casefold().split())


def rouge_l(reply: str, reference: str) -> float:
    """ROUGE-L of one pair, 0 to 1: the F-measure (β = 1) of the longest common subsequence of words (Lin 2004, §3.1).

    Words are runs of letters and digits of any script, compared without case, and not stemmed.
    """
    said, wanted = words(reply), words(reference)
    common = _common_subsequence(said, wanted)
    return 2 * common / (len(said) + len(wanted)) if common else 0.0


def words(text: str) -> list[str]:
    """The words of a text as :func:`rouge_l` compares them."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence; a row of the table is the bits of one integer (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        both = row & places.get(word, 0)
        row = ((row + both) | (row - both)) & every
    return len(first) - row.bit_count()
