"""What the hub has of a model's weights, known without downloading them: size, number types, license, gate.

A safetensors file begins with a header that lists its tensors, and an HTTP range request reads the header alone. It is
read together with a model's configuration and kept in the home's cache, to be shown later without a network.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from workbench.models.local import cached_snapshot, count_elements, header_length, parse_header
from workbench.models.model_card import license_name
from workbench.recipe.sections.model import ModelSection
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home
from workbench.units import short

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# Most headers are shorter, so that one request reads them.
_FIRST_BYTES = 100_000
_REQUEST_SECONDS, _ALL_SECONDS = 5.0, 20.0
_PARALLEL = 8


@dataclass(frozen=True)
class HubWeights:
    """What the hub says about the weights of one commit of a repository.

    Attributes:
        day: on which it was read, such as ``2026-11-30``.
        bytes: size of the ``files`` weight files.
        dtypes: elements by safetensors' dtype name, from the headers; empty if they could not be read.
        unread: why the headers were not read, as a sentence; empty if they were.
        licence: as the model's card states it; empty if it does not.
    """

    commit: str
    day: str
    bytes: int = 0
    files: int = 0
    dtypes: dict[str, int] = field(default_factory=dict, hash=False)
    unread: str = ""
    licence: str = ""
    gated: bool = False


def numbers_text(dtypes: Mapping[str, int]) -> str:
    """Elements by dtype, most first: ``1.24B BF16, 3.1M F32``."""
    most_first = sorted(dtypes.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{short(count)} {dtype}" for dtype, count in most_first)


def kept_weights(home: Home, source: str, commit: str, subfolder: str | None = None) -> HubWeights | None:
    """What was read about the weights of a commit; None if nothing was, or if its file is damaged."""
    try:
        text = _file(home, source, commit, subfolder).read_text(encoding="utf-8")
        return _adapter().validate_json(text)
    except (OSError, ValueError):
        return None


@cache
def _adapter() -> TypeAdapter[HubWeights]:
    return TypeAdapter(HubWeights)


def kept_weights_of(home: Home, model: ModelSection) -> HubWeights | None:
    """What was read about the weights of a recipe's hub model, at the commit that is in the hub cache."""
    snapshot = cached_snapshot(model.source, model.revision)
    return kept_weights(home, model.source, snapshot.name, model.subfolder) if snapshot is not None else None


def keep_weights(home: Home, model: ModelSection, weights: HubWeights) -> None:
    """Keep what was read; a full disk keeps nothing."""
    file = _file(home, model.source, weights.commit, model.subfolder)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(asdict(weights)) + "\n")


def _file(home: Home, source: str, commit: str, subfolder: str | None) -> Path:
    inside = "--" + subfolder.strip("/").replace("/", "--") if subfolder else ""
    return home.cache / "models" / "weights" / f"{source.replace('/', '--')}@{commit}{inside}.json"


def read_weights(listing: "ModelInfo", sizes: Mapping[str, int], names: Iterable[str], inside: str = "") -> HubWeights:
    """Read the headers of a repository's weight files over the network. Imports huggingface_hub.

    Args:
        listing: what the hub answered about the repository.
        sizes: bytes of its files, by name.
        names: of the weight files.
        inside: the folder of the repository that has them, with a slash at the end.
    """
    weights = list(names)
    dtypes, unread = _read_headers(listing.id, str(listing.sha), [inside + name for name in weights])
    return HubWeights(
        commit=str(listing.sha),
        day=datetime.now(UTC).date().isoformat(),
        bytes=sum(sizes[name] for name in weights),
        files=len(weights),
        dtypes=dtypes,
        unread=unread,
        licence=_license(listing),
        gated=bool(listing.gated),
    )


def _license(listing: "ModelInfo") -> str:
    card: Any = listing.card_data or {}
    tags = map(str, listing.tags or [])
    tag = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), "")
    return license_name({key: card.get(key) for key in ("license", "license_name")}) or tag


def _read_headers(repo: str, commit: str, files: list[str]) -> tuple[dict[str, int], str]:
    """Elements by dtype of all files, or why they are not known."""
    counts: Counter[str] = Counter()
    pool = ThreadPoolExecutor(_PARALLEL)
    try:
        reading = [pool.submit(_elements_in, repo, commit, file) for file in files]
        done, late = wait(reading, timeout=_ALL_SECONDS)
        if late:
            return {}, f"The hub sent only {len(done)} of {len(files)} headers in {_ALL_SECONDS:g} seconds."
        for one in reading:
            counts.update(one.result())
    except Exception as error:  # a refused or damaged file must not hide what else is known
        from workbench.failures.hub_errors import hub_error

        known = hub_error(error, f"the weights of {repo}")
        return {}, known.message if known else f"{type(error).__name__}: {error}"
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return dict(counts), ""


def _elements_in(repo: str, commit: str, file: str) -> dict[str, int]:
    from huggingface_hub import hf_hub_url

    from workbench.machine.hub import endpoint

    url = hf_hub_url(repo, file, revision=commit, endpoint=endpoint())
    start = _part(url, 0, _FIRST_BYTES)
    end = 8 + header_length(start, file)
    if len(start) < end:
        start += _part(url, len(start), end)
    return count_elements(parse_header(start[8:end], file))


def _part(url: str, begin: int, end: int) -> bytes:
    """Bytes ``begin`` to ``end`` of a file, or fewer where it is shorter."""
    from huggingface_hub import get_session
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import hf_raise_for_status

    headers = {**build_hf_headers(), "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
    session = get_session()
    with session.stream("GET", url, headers=headers, timeout=_REQUEST_SECONDS, follow_redirects=True) as answer:
        if answer.status_code >= 400:
            answer.read()
        hf_raise_for_status(answer)
        # A server without ranges sends the whole file: its first bytes are skipped, and it is not read to its end.
        before = begin if answer.status_code == 200 else 0
        received = bytearray()
        for chunk in answer.iter_bytes():
            received += chunk
            if len(received) >= before + end - begin:
                break
    return bytes(received[before : before + end - begin])
