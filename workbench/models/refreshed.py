"""The newest models of the catalog's organizations, read from the hub on request and kept in the home's cache.

Only listings and ``config.json`` files are downloaded, never weights. The catalog itself stays as it is shipped: what
is listed here is shown beside it, and without a network the list of the last time stays.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.failures.hub_errors import hub_error
from workbench.machine.hub import endpoint
from workbench.models.catalog import catalog, catalog_entry
from workbench.models.child import report, run_in_child
from workbench.models.hub import unreachable_reason
from workbench.progress import Cancelled, Progress, Report
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

PER_ORGANIZATION = 6
"""Models to read of each organization: the newest ones that are not in the catalog."""

_FORMAT = 1
_LISTED = 30
_CONFIG_LIMIT = 1_000_000


@dataclass(frozen=True)
class RefreshedModel:
    """A model as the hub describes it.

    Attributes:
        parameters: as counted by the hub from the safetensors headers; None if it did not.
        licence: the license tag of its card; empty if it has none.
        config: the content of its ``config.json``; empty if the hub refuses it, as for a gated model without a token.
    """

    id: str
    architecture: str
    model_type: str
    licence: str
    gated: bool
    parameters: int | None
    created: str
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def context_length(self) -> int | None:
        """In tokens; None if the configuration does not say."""
        value = _text_config(self.config).get("max_position_embeddings")
        return value if isinstance(value, int) else None

    @property
    def dtype(self) -> str:
        text = _text_config(self.config)
        sources = (self.config, text)
        return next((str(s[key]) for s in sources for key in ("dtype", "torch_dtype") if s.get(key)), "")


@dataclass(frozen=True)
class RefreshedList:
    """What the hub listed, and on which day (``2026-11-30``; empty before the first time)."""

    models: tuple[RefreshedModel, ...] = ()
    day: str = ""


@dataclass(frozen=True)
class _Answer:
    """What the child process read. ``failed`` maps organizations to the reason why they could not be listed."""

    models: list[dict[str, Any]]
    failed: dict[str, str]


def organizations() -> tuple[str, ...]:
    """The hub organizations of the catalog's models, in its order."""
    return tuple(dict.fromkeys(entry.id.partition("/")[0] for entry in catalog()))


def refreshed_models(home: Home) -> RefreshedList:
    """The list of the last refresh; empty if there was none, or if its file is damaged."""
    try:
        data = json.loads(_file(home).read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            return RefreshedList()
        models = tuple(RefreshedModel(**model) for model in data["models"])
    except (OSError, ValueError, KeyError, TypeError):
        return RefreshedList()
    return RefreshedList(tuple(m for m in models if catalog_entry(m.id) is None), str(data["day"]))


def refresh(
    home: Home,
    progress: Report = lambda _: None,
    cancelled: Cancelled = lambda: False,
    owners: Iterable[str] | None = None,
) -> tuple[RefreshedList, Mapping[str, str]]:
    """Read the newest models from the hub and keep them.

    Args:
        owners: organizations to ask; default: all of :func:`organizations`.

    Returns:
        the new list, and the organizations that could not be listed with the reason; their models of the last time
        stay in the list.

    Raises:
        WorkbenchError: kind ``unreachable`` if the hub does not answer; the old list stays.
    """
    old = refreshed_models(home)
    progress(Progress(phase="reaching the hub"))
    if reason := unreachable_reason():
        kept = f"The list of {old.day} stays: {len(old.models)} models." if old.day else "There is no earlier list."
        raise WorkbenchError(
            f"The list of models cannot be refreshed: {endpoint()} cannot be reached ({reason}). {kept}",
            "Connect this machine, or set HF_ENDPOINT to a mirror of the hub.",
            kind="unreachable",
        )
    asked = list(owners if owners is not None else organizations())
    answer = run_in_child(
        f"{__name__}:_read",
        {"owners": asked, "known": [name for entry in catalog() for name in (entry.id, *entry.aliases)]},
        progress,
        cancelled,
        result=_Answer,
        what="the refresh",
    )
    if answer.failed and len(answer.failed) == len(asked):
        first = next(iter(answer.failed.values()))
        raise WorkbenchError(
            f"The list of models cannot be refreshed: {first}", "The old list stays. Try again later.", kind="hub_error"
        )
    stays = {owner.casefold() for owner in answer.failed}
    kept_models = [m for m in old.models if m.id.partition("/")[0].casefold() in stays]
    new = RefreshedList(
        (*(RefreshedModel(**model) for model in answer.models), *kept_models),
        datetime.now(UTC).date().isoformat(),
    )
    _file(home).parent.mkdir(parents=True, exist_ok=True)
    write_text(
        _file(home), json.dumps({"format": _FORMAT, "day": new.day, "models": [asdict(m) for m in new.models]}) + "\n"
    )
    return new, answer.failed


def _file(home: Home) -> Path:
    return home.cache / "models" / "refreshed.json"


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _read(owners: list[str], known: list[str]) -> dict[str, Any]:
    """In the child: list each organization's newest models, and read the configurations of those not in ``known``."""
    from huggingface_hub import HfApi

    api, seen = HfApi(), {name.casefold() for name in known}
    models: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for place, owner in enumerate(owners):
        report("reading the newest models", place / len(owners), owner)
        try:
            listing = api.list_models(
                author=owner,
                pipeline_tag="text-generation",
                filter="safetensors",
                sort="created_at",
                limit=_LISTED,
                expand=["config", "createdAt", "gated", "safetensors", "tags"],
            )
            newest = [info for info in listing if info.id.casefold() not in seen and not info.private]
        except Exception as error:
            explained = hub_error(error, f"the organization {owner}")
            failed[owner] = explained.message if explained else f"{type(error).__name__}: {error}"
            continue
        models += [_described(info) for info in newest[:PER_ORGANIZATION]]
    return {"models": models, "failed": failed}


def _described(info: Any) -> dict[str, Any]:
    listed = info.config if isinstance(info.config, dict) else {}
    config = _config_of(info.id)
    architectures = config.get("architectures") or listed.get("architectures") or [""]
    tags = [str(tag) for tag in info.tags or []]
    model = RefreshedModel(
        id=info.id,
        architecture=str(architectures[0]),
        model_type=str(config.get("model_type") or listed.get("model_type") or ""),
        licence=next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), ""),
        gated=bool(info.gated),
        parameters=getattr(info.safetensors, "total", None),
        created=info.created_at.date().isoformat() if info.created_at else "",
        config=config,
    )
    return asdict(model)


def _config_of(model_id: str) -> dict[str, Any]:
    """A model's ``config.json``; empty if the hub refuses it. Not kept in the hub cache, which lists models to use."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils._headers import build_hf_headers

    url = hf_hub_url(model_id, "config.json", endpoint=endpoint())
    try:
        answer = get_session().get(url, headers=build_hf_headers(), timeout=15.0, follow_redirects=True)
        if answer.status_code != 200 or len(answer.content) > _CONFIG_LIMIT:
            return {}
        config = json.loads(answer.content)
    except Exception:  # this model is listed without its configuration
        return {}
    return config if isinstance(config, dict) else {}
