"""How many rows a model's embedding needs for its tokenizer, read from the tokenizer's files without transformers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def rows_for_tokenizer(folder: Path) -> int | None:
    """The largest token id of the tokenizer in a model folder, plus one; None if it has no ``tokenizer.json``."""
    tokenizer = _read(folder / "tokenizer.json")
    if not tokenizer:
        return None
    settings, added = _read(folder / "tokenizer_config.json"), _read(folder / "added_tokens.json")
    ids = [*_own_ids(tokenizer), *map(int, settings.get("added_tokens_decoder") or {}), *added.values()]
    return max((number for number in ids if isinstance(number, int)), default=-1) + 1


def _own_ids(tokenizer: dict[str, Any]) -> Iterator[int]:
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):
        yield from vocabulary.values()
    elif isinstance(vocabulary, list):
        yield len(vocabulary) - 1  # Unigram: pieces with their scores, in the order of their ids
    yield from (token["id"] for token in tokenizer.get("added_tokens") or ())


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
