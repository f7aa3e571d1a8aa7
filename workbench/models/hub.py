"""The Hugging Face hub: whether it can be reached, what of a repository is taken, and what its refusals mean."""

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workbench.engine.protocol import Progress
from workbench.errors import WorkbenchError
from workbench.models.child import bars_as_progress, report, run_in_child
from workbench.models.local import cached_snapshot, hub_cache

DEFAULT_ENDPOINT = "https://huggingface.co"

WAYS_OUT = (
    "Connect this machine, or set HF_ENDPOINT to a mirror of the hub, or copy the model's folder here and give its "
    "path."
)

_PROBE_SECONDS = 4.0
_TRUE = {"1", "ON", "YES", "TRUE"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_TEXT_ENDINGS = (".json", ".txt", ".model", ".jinja", ".tiktoken")


def endpoint() -> str:
    """The address of the hub or of its mirror (``HF_ENDPOINT``)."""
    return os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether the user forbids going to the hub (``HF_HUB_OFFLINE``, ``TRANSFORMERS_OFFLINE``)."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE


def is_hub_id(source: str) -> bool:
    """Whether a model's source can be the name of a hub repository: ``owner/name`` or ``name``."""
    return bool(_HUB_ID.fullmatch(source)) and "--" not in source and ".." not in source


def token_place() -> str | None:
    """Where a token of the hub is found (never its value): ``HF_TOKEN``, or the file that ``hf auth login`` writes."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return name
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    home = Path(os.path.expandvars(os.environ.get("HF_HOME") or base)).expanduser()
    file = Path(os.path.expandvars(os.environ.get("HF_TOKEN_PATH") or home / "token")).expanduser()
    try:
        return str(file) if file.read_text(encoding="utf-8").strip() else None
    except (OSError, ValueError):
        return None


def unreachable_reason(seconds: float = _PROBE_SECONDS) -> str | None:
    """None when the hub answers within ``seconds``, else why not. Any HTTP answer counts, an error page too.

    A thread does the asking: a name server that is silent blocks it for longer than any time-out of HTTP.
    """
    if is_offline():
        return "HF_HUB_OFFLINE forbids it"
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
        return "the proxy wants a password"
    return None


def download_model(
    repo: str,
    revision: str | None,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    *,
    with_code: bool = False,
    config_only: bool = False,
) -> tuple[Path, str]:
    """Bring a model into the hub's cache: safetensors and text files, no pickles. Returns ``(folder, commit)``.

    A download that was broken off goes on where it stopped. ``with_code`` takes the repository's Python files too;
    ``config_only`` takes no weights.

    Raises:
        WorkbenchError: ``unreachable``, ``gated``, ``model_not_found``, ``no_safetensors``, ``disk_full``, …
    """
    progress(Progress(phase="reaching the hub", detail=repo))
    if reason := unreachable_reason():
        raise unreachable(f"the model {repo}", reason)
    answer = run_in_child(
        f"{__name__}:_download",
        {"repo": repo, "revision": revision, "with_code": with_code, "config_only": config_only},
        progress,
        cancelled,
        what="the download",
    )
    return Path(answer["folder"]), answer["commit"]


def unreachable(what: str, reason: str) -> WorkbenchError:
    """The hub does not answer: the sentence, and the ways out."""
    if is_offline():
        return WorkbenchError(
            f"{_sentence(what)} is not in the cache, and HF_HUB_OFFLINE forbids downloading it.",
            "Unset HF_HUB_OFFLINE, or give the path of a local folder.",
            kind="unreachable",
        )
    return WorkbenchError(
        f"{_sentence(what)} is not on this machine, and {endpoint()} cannot be reached ({reason}).",
        WAYS_OUT,
        kind="unreachable",
    )


def wanted_files(names: Iterable[str], *, with_code: bool = False, config_only: bool = False) -> list[str]:
    """The files of a repository that are taken: weights as safetensors, configuration, tokenizer. Top level only.

    Copies of the weights in other layouts (``consolidated.safetensors``, ``model.fp16.safetensors``) are left.

    Raises:
        WorkbenchError: the repository holds no model that can be trained; the message says what it holds instead.
    """
    top = [name for name in names if "/" not in name]
    text = [name for name in top if name.endswith(_TEXT_ENDINGS) or (with_code and name.endswith(".py"))]
    if "config.json" not in top:
        raise _no_model(top)
    if config_only:
        return [name for name in text if not name.endswith(".index.json")]
    weights = [name for name in top if name == "model.safetensors"] or [name for name in top if _SHARD.fullmatch(name)]
    if not weights:
        raise _no_safetensors(top)
    return sorted(text + weights)


def hub_error(error: BaseException, what: str) -> WorkbenchError | None:
    """What an exception of huggingface_hub means for ``what`` (``"the model x/y"``); None for any other exception."""
    names = {base.__name__ for base in type(error).__mro__ if base.__module__.startswith("huggingface_hub")}
    status = getattr(getattr(error, "response", None), "status_code", None)
    repo = what.rpartition(" ")[2]
    if "GatedRepoError" in names:
        place = token_place()
        has = f"the token in {place} has no access to it" if place else "no token is set"
        page = f"{endpoint()}/{repo}" if is_hub_id(repo) else "its page on the hub"
        return WorkbenchError(
            f"{_sentence(what)} is gated: its owner wants you to accept a licence, and {has}.",
            f"Accept it at {page}, then run `hf auth login` (or set HF_TOKEN and restart the engine).",
            kind="gated",
        )
    if "RevisionNotFoundError" in names:
        return WorkbenchError(
            f"{_sentence(what)} has no such revision.",
            "Leave model.revision empty for its main branch, or name a branch, tag or commit.",
            kind="revision_not_found",
        )
    if "RepositoryNotFoundError" in names:
        return WorkbenchError(
            f"The hub has no {what.removeprefix('the ')}, or it is private.",
            "Check the spelling (owner/name); for a private one run `hf auth login` or set HF_TOKEN.",
            kind="model_not_found",
        )
    if "OfflineModeIsEnabled" in names or "LocalEntryNotFoundError" in names or "RevisionResolutionError" in names:
        return unreachable(what, "the hub did not answer")
    if "HFValidationError" in names:
        return WorkbenchError(
            f"{_sentence(what)} is neither a folder on this machine nor a name that the hub could have.",
            "Give a Hugging Face id (owner/name), a folder, or a .gguf file.",
            kind="model_not_found",
        )
    if status in (401, 403):
        place = token_place()
        return WorkbenchError(
            f"The hub refuses {what} ({status})" + (f" to the token in {place}." if place else "."),
            "Run `hf auth login` with a valid token, or unset HF_TOKEN for public models.",
            kind="token_refused",
        )
    if "HfHubHTTPError" in names:
        return WorkbenchError(
            f"The hub answered {status or 'with an error'} for {what}.", "Try again in a minute.", kind="hub_error"
        )
    return None


def _sentence(what: str) -> str:
    return what[:1].upper() + what[1:]


def _no_model(top: list[str]) -> WorkbenchError:
    if "adapter_config.json" in top:
        return WorkbenchError(
            "This repository holds an adapter, not a model.",
            "Take the model named as base_model_name_or_path in its adapter_config.json.",
            kind="no_model",
        )
    if any(name.endswith(".gguf") for name in top):
        return WorkbenchError(
            "This repository holds only GGUF files.",
            "Download one of them and give its path, or take the repository that it was made from.",
            kind="no_safetensors",
        )
    return WorkbenchError("This repository holds no config.json.", "Take another model.", kind="no_model")


def _no_safetensors(top: list[str]) -> WorkbenchError:
    if any(name.endswith((".bin", ".pt", ".pth")) for name in top):
        return WorkbenchError(
            "This repository holds its weights only as pickles, which can run code when opened; they are not taken.",
            "Take a repository with safetensors; the hub's converter at "
            f"{DEFAULT_ENDPOINT}/spaces/safetensors/convert offers one as a pull request.",
            kind="no_safetensors",
        )
    return WorkbenchError("This repository holds no weights.", "Take another model.", kind="no_safetensors")


def _check_room(repo: str, needed: int) -> None:
    """Refuse before a download, not at its end."""
    cache = hub_cache()
    place = next(parent for parent in (cache, *cache.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise WorkbenchError(
            f"The disk is too full: {repo} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free at {cache}.",
            "Free some space (`hf cache rm`), or set HF_HOME to a folder on another disk and restart the engine.",
            kind="disk_full",
        )


def _download(repo: str, revision: str | None, with_code: bool, config_only: bool) -> dict[str, Any]:
    """In the child: list, choose, download."""
    from huggingface_hub import HfApi, snapshot_download
    from tqdm.auto import tqdm

    try:
        listing = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=15.0)
        sizes = {file.rfilename: file.size or 0 for file in listing.siblings or []}
        wanted = wanted_files(sizes, with_code=with_code, config_only=config_only)
        here = cached_snapshot(repo, listing.sha)
        missing = sum(sizes[name] for name in wanted if here is None or not (here / name).exists())
        _check_room(repo, missing)
        report("downloading", 0.0, repo)
        with bars_as_progress("downloading", missing):
            folder = snapshot_download(repo, revision=revision, allow_patterns=wanted, tqdm_class=tqdm)
    except WorkbenchError as error:
        message = error.message.replace("This repository", f"{repo} on the hub")
        raise WorkbenchError(message, error.cure, kind=error.kind) from None
    except Exception as error:
        if known := hub_error(error, f"the model {repo}"):
            raise known from error
        raise
    return {"folder": folder, "commit": Path(folder).name}
