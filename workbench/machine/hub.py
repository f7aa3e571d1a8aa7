"""The Hugging Face hub settings of this machine: endpoint, offline mode, location of the token."""

import os
import re
from pathlib import Path

DEFAULT_ENDPOINT = "https://huggingface.co"

_TRUE = {"1", "ON", "YES", "TRUE"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def endpoint() -> str:
    """The URL of the hub, or of a mirror (``HF_ENDPOINT``)."""
    return os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether the user disabled access to the hub (``HF_HUB_OFFLINE``, ``TRANSFORMERS_OFFLINE``)."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE


def is_hub_id(source: str) -> bool:
    """Whether a model source is a valid name of a hub repository: ``owner/name`` or ``name``."""
    return bool(_HUB_ID.fullmatch(source)) and "--" not in source and ".." not in source


def token_place() -> str | None:
    """Where a hub token is stored (never its value): ``HF_TOKEN``, or the file that ``hf auth login`` writes."""
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
