"""A template in an adapter's folder: for us, and as ``chat_template.jinja`` for everybody else."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench.errors import WorkbenchError

FILE = "template.json"
_JINJA = "chat_template.jinja"


@dataclass(frozen=True)
class StoredTemplate:
    """What a folder says of a template: its name, its Jinja, and the default system prompt."""

    name: str
    source: str
    system: str | None = None


def read_template(folder: Path) -> StoredTemplate | None:
    """The template saved with an adapter, or the folder's ``chat_template.jinja``; None if it has neither.

    Raises:
        WorkbenchError: the saved template is damaged.
    """
    path, jinja = folder / FILE, folder / _JINJA
    try:
        if path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            name, source, system = saved["name"], saved["source"], saved["system"]
            if not (isinstance(name, str) and isinstance(source, str) and isinstance(system, str | None)):
                raise TypeError
            return StoredTemplate(name, source, system)
        if jinja.exists():
            return StoredTemplate("model", jinja.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        raise WorkbenchError(
            f"The template saved in {folder} cannot be read.",
            f"Remove {FILE} there to use the model's own template.",
            kind="template",
        ) from None
    return None


def write_template(folder: Path, template: StoredTemplate, source_for_others: str) -> None:
    """Write a template into an adapter's folder.

    Args:
        source_for_others: its Jinja for programs that do not know its default system prompt.
    """
    (folder / FILE).write_text(json.dumps(asdict(template), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / _JINJA).write_text(source_for_others, encoding="utf-8")
