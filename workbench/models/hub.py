"""Downloads models from the Hugging Face hub: checks the connection, selects the files, explains refusals."""

import glob
import json
import re
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from workbench.errors import WorkbenchError
from workbench.failures.hub_errors import hub_error, unreachable
from workbench.machine.hub import DEFAULT_ENDPOINT, endpoint, is_offline
from workbench.models.child import bars_as_progress, report, run_in_child
from workbench.models.hub_weights import HubWeights, read_weights
from workbench.models.local import ADAPTER_CONFIG, WEIGHTS_INDEX, cached_snapshot, hub_cache
from workbench.progress import Cancelled, Progress, Report
from workbench.units import size_in

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_PROBE_SECONDS = 4.0
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_TEMPLATES = "additional_chat_templates/"
_TEXT_ENDINGS = (".json", ".txt", ".model", ".jinja", ".tiktoken")


@dataclass(frozen=True)
class Snapshot:
    """A downloaded revision of a repository: the model's folder in the hub cache, and the commit hash.

    ``weights``: what the hub has of weights that were not downloaded; None if they were.
    """

    folder: Path
    commit: str
    weights: HubWeights | None = None


def unreachable_reason(seconds: float = _PROBE_SECONDS) -> str | None:
    """Why the hub cannot be reached; None if it answers within ``seconds``, even with an error page.

    The request runs in a thread, because an unresponsive DNS server blocks for longer than the HTTP timeout.
    """
    if is_offline():
        return "HF_HUB_OFFLINE is set"
    reasons: list[str | None] = []
    prober = threading.Thread(target=lambda: reasons.append(_probe(seconds)), daemon=True)
    prober.start()
    prober.join(seconds + 1.0)
    return reasons[0] if reasons else f"no answer within {seconds:g} s"


def _probe(seconds: float) -> str | None:
    import httpx

    try:
        answer = httpx.head(endpoint(), timeout=seconds)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return str(error).strip() or type(error).__name__
    if answer.status_code == 407:
        return "the proxy requires a password"
    return None


def download_model(
    repo: str,
    revision: str | None,
    progress: Report,
    cancelled: Cancelled,
    *,
    subfolder: str | None = None,
    with_code: bool = False,
    config_only: bool = False,
) -> Snapshot:
    """Download a model into the hub cache: safetensors and text files, no pickles.

    An interrupted download resumes where it stopped.

    Args:
        subfolder: the folder of the repository that has the model; None for its top level.
        with_code: also download the repository's Python files.
        config_only: download no weights; only their headers are read.

    Raises:
        WorkbenchError: ``unreachable``, ``gated``, ``model_not_found``, ``no_safetensors``, ``disk_full``, …
    """
    progress(Progress(phase="reaching the hub", detail=repo))
    if reason := unreachable_reason():
        raise unreachable(f"the model {repo}", reason)
    return run_in_child(
        f"{__name__}:_download",
        {
            "repo": repo,
            "revision": revision,
            "subfolder": subfolder or "",
            "with_code": with_code,
            "config_only": config_only,
        },
        progress,
        cancelled,
        result=Snapshot,
        what="the download",
    )


def files_to_download(
    names: Iterable[str], shards: Iterable[str] = (), *, with_code: bool = False, config_only: bool = False
) -> list[str]:
    """Select the files of a model's folder to download: safetensors, configuration, tokenizer and chat templates.

    Copies of the weights in other layouts (``consolidated.safetensors``, ``model.fp16.safetensors``) are skipped.

    Args:
        shards: the weight files that the index lists, if there is one and it is known.

    Raises:
        WorkbenchError: the repository has no model that can be trained; the message says what it contains instead.
    """
    names = list(names)
    top = [name for name in names if "/" not in name]
    text = [name for name in top if name.endswith(_TEXT_ENDINGS) or (with_code and name.endswith(".py"))]
    # transformers would load an adapter beside a model together with it.
    text = [name for name in text if name != ADAPTER_CONFIG]
    text += [name for name in names if name.startswith(_TEMPLATES) and name.endswith(".jinja")]
    if "config.json" not in top:
        raise _no_model(top)
    if config_only:
        return [name for name in text if not name.endswith(".index.json")]
    return sorted(text + _weights(top, shards))


def _weights(top: list[str], shards: Iterable[str]) -> list[str]:
    """The weight files among the names of a model's folder.

    Raises:
        WorkbenchError: there are none; kind ``no_safetensors``.
    """
    listed = set(shards)
    weights = (
        [name for name in top if name in listed]
        or [name for name in top if name == "model.safetensors"]
        or [name for name in top if _SHARD.fullmatch(name)]
    )
    if not weights:
        raise _no_safetensors(top)
    return weights


def _no_model(top: list[str]) -> WorkbenchError:
    if ADAPTER_CONFIG in top:
        return WorkbenchError(
            "This repository contains an adapter, not a model.",
            "Use the model named as base_model_name_or_path in its adapter_config.json.",
            kind="no_model",
        )
    if any(name.endswith(".gguf") for name in top):
        return WorkbenchError(
            "This repository contains only GGUF files.",
            "Download one and give its path, or use the original repository.",
            kind="no_safetensors",
        )
    return WorkbenchError("This repository has no config.json.", "Choose another model.", kind="no_model")


def _no_safetensors(top: list[str]) -> WorkbenchError:
    if any(name.endswith((".bin", ".pt", ".pth")) for name in top):
        return WorkbenchError(
            "This repository has its weights only as pickle files, which can run code when loaded; they are not used.",
            "Use a repository with safetensors; the converter at "
            f"{DEFAULT_ENDPOINT}/spaces/safetensors/convert creates one as a pull request.",
            kind="no_safetensors",
        )
    return WorkbenchError("This repository has no weights.", "Choose another model.", kind="no_safetensors")


def _check_disk_space(repo: str, needed: int) -> None:
    """Refuse a download that does not fit before it starts."""
    cache = hub_cache()
    existing = next(parent for parent in (cache, *cache.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise WorkbenchError(
            f"The disk is too full: {repo} needs {size_in('GB', needed)}, only {size_in('GB', free)} free at {cache}.",
            "Free some space (`hf cache rm`), or set HF_HOME to a folder on another disk and restart the engine.",
            kind="disk_full",
        )


class _SnapshotJson(TypedDict):
    folder: str
    commit: str
    weights: dict[str, object] | None


def _download(repo: str, revision: str | None, subfolder: str, with_code: bool, config_only: bool) -> _SnapshotJson:
    """In the child: list the repository's files, select some and download them."""
    from huggingface_hub import HfApi, snapshot_download
    from tqdm.auto import tqdm

    inside = f"{subfolder.strip('/')}/" if subfolder else ""
    try:
        listing = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=15.0)
        if listing.id.casefold() != repo.casefold():
            report("reaching the hub", None, f"{repo} is now called {listing.id} on the hub")
        sizes = {
            file.rfilename.removeprefix(inside): file.size or 0
            for file in listing.siblings or []
            if file.rfilename.startswith(inside)
        }
        shards = () if config_only or WEIGHTS_INDEX not in sizes else _shards(repo, listing.sha, inside)
        selected = files_to_download(sizes, shards, with_code=with_code, config_only=config_only)
        cached = cached_snapshot(repo, listing.sha)
        missing = sum(sizes[name] for name in selected if cached is None or not (cached / inside / name).exists())
        _check_disk_space(repo, missing)
        report("downloading", 0.0, repo)
        patterns = [glob.escape(inside + name) for name in selected]
        with bars_as_progress("downloading", missing):
            folder = snapshot_download(repo, revision=revision, allow_patterns=patterns, tqdm_class=tqdm)
        weights = _without_download(listing, sizes, inside) if config_only else None
    except WorkbenchError as error:
        where = f"{repo} on the hub" if not inside else f"{subfolder} of {repo} on the hub"
        message = error.message.replace("This repository", where)
        raise WorkbenchError(message, error.cure, kind=error.kind) from None
    except Exception as error:
        if known := hub_error(error, f"the model {repo}"):
            raise known from error
        raise
    return {"folder": str(Path(folder) / subfolder), "commit": Path(folder).name, "weights": weights}


def _without_download(listing: "ModelInfo", sizes: Mapping[str, int], inside: str) -> dict[str, object]:
    """What the hub has of the weights, from the headers of their files."""
    report("reading the headers of the weights", None, listing.id)
    top = [name for name in sizes if "/" not in name]
    try:
        names, unread = _weights(top, ()), ""
    except WorkbenchError as error:
        names, unread = [], error.message.replace("This repository", listing.id)
        if WEIGHTS_INDEX in sizes:  # it gives the files other names
            names, unread = [name for name in top if name.endswith(".safetensors")], ""
    weights = read_weights(listing, sizes, names, inside)
    return asdict(replace(weights, unread=unread) if unread else weights)


def _shards(repo: str, commit: str | None, inside: str) -> list[str]:
    """The weight files that the index of a repository lists; empty if it is unreadable."""
    from huggingface_hub import hf_hub_download

    index = Path(hf_hub_download(repo, inside + WEIGHTS_INDEX, revision=commit))
    try:
        return [str(name) for name in json.loads(index.read_bytes())["weight_map"].values()]
    except (ValueError, KeyError, AttributeError):
        return []
