"""Finds records that equal an earlier one, or nearly do: MinHash signatures of word sequences, compared by Jaccard."""

import hashlib
import importlib.util
import json
import re
from typing import TYPE_CHECKING, Any, Literal

from workbench.data.records.conversation import Conversation, Segments
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    import numpy as np

Match = Literal["", "exact", "near"]
_WORDS = re.compile(r"\w+")
# Words in a sequence, as in the cleaning of web corpora (Lee et al. 2022, https://arxiv.org/abs/2107.06499).
_SHINGLE = 5
_PERMUTATIONS = 128


def can_find_near() -> bool:
    """Whether the library that finds near-duplicates is installed."""
    return importlib.util.find_spec("datasketch") is not None


class SeenRecords:
    """The records so far. ``threshold``: the similarity from which two are near-duplicates; 0: only equal ones count.

    Raises:
        WorkbenchError: ``datasketch`` is not installed.
    """

    def __init__(self, threshold: float) -> None:
        self._digests: set[bytes] = set()
        self._threshold = threshold
        self._signatures: dict[int, np.ndarray[Any, Any]] = {}
        self._index: Any = None
        if not threshold:
            return
        if not can_find_near():
            raise WorkbenchError(
                "Near-duplicates cannot be found: datasketch is not installed.",
                "Install it with `pip install 'loraworkbench[dedup]'`, or set --near-duplicates 0.",
                kind="not_installed",
            )
        from datasketch import MinHashLSH

        self._index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)

    def match(self, content: Conversation | Segments | str, *, add: bool) -> Match:
        """How a record matches the earlier ones; one that does not is added to them if ``add``."""
        digest = _digest(content)
        if digest in self._digests:
            return "exact"
        if self._index is not None and self._is_near(content, add):
            return "near"
        if add:
            self._digests.add(digest)
        return ""

    def _is_near(self, content: Conversation | Segments | str, add: bool) -> bool:
        from datasketch import MinHash

        signature = MinHash(num_perm=_PERMUTATIONS)
        signature.update_batch(_shingles(_text(content)))
        values = signature.hashvalues
        # Which of the candidates are as similar as the threshold asks is counted: the index alone finds too many.
        for key in self._index.query(signature):
            if (self._signatures[key] == values).mean() >= self._threshold:
                return True
        if add:
            key = len(self._signatures)
            self._signatures[key] = values.astype("uint32") if values.max() < 2**32 else values
            self._index.insert(key, signature)
        return False


def _digest(content: Conversation | Segments | str) -> bytes:
    fields: object = content
    if isinstance(content, Segments):
        fields = content.segments
    elif isinstance(content, Conversation):
        fields = [content.messages, content.tools, sorted(content.untrained)]
    text = json.dumps(fields, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _text(content: Conversation | Segments | str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Segments):
        return content.text
    calls = [json.dumps(message["tool_calls"]) for message in content.messages if "tool_calls" in message]
    return "\n".join([*content.texts, *calls])


def _shingles(text: str) -> list[bytes]:
    """Sequences of words; a shorter text is one sequence. Text without word characters stands for itself."""
    words = _WORDS.findall(text.lower()) or [text]
    count = max(len(words) - _SHINGLE + 1, 1)
    return [" ".join(words[start : start + _SHINGLE]).encode("utf-8", "surrogatepass") for start in range(count)]
