"""Recipes with a name: those that ship with the workbench, and the user's own beside them.

A preset is a recipe's YAML with three comments in front, which :func:`describe_preset` reads::

    # Title
    # Origin: where it comes from, in a line.
    # Advice: when to use it; goes on
    #   over indented lines.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.recipe import text as recipe_text
from workbench.recipe.schema import Recipe
from workbench.storage.atomic import write_text
from workbench.storage.folders import entries
from workbench.storage.paths import Home

_SHIPPED = Path(__file__).resolve().parents[2] / "presets" / "recipes"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIRST = ("demo",)


@dataclass(frozen=True)
class PresetDescription:
    """What a preset says of itself. ``own``: the user saved it."""

    name: str
    title: str
    origin: str
    advice: str
    own: bool = False


def preset_names(home: Home | None = None) -> list[str]:
    """Shipped presets, the demo first, then the user's own; a preset of the user's hides a shipped one of its name."""
    shipped = sorted((path.stem for path in _SHIPPED.glob("*.yaml")), key=lambda name: (name not in _FIRST, name))
    own = [path.stem for path in entries(_folder(home)) if path.suffix == ".yaml"] if home else []
    return [*shipped, *(name for name in own if name not in shipped)]


def load_preset(name: str, home: Home | None = None) -> Recipe:
    """The recipe of a preset.

    Raises:
        WorkbenchError: there is no such preset.
        RecipeError: it has mistakes; all of them.
    """
    return recipe_text.read(_path(name, home))


def preset_text(name: str, home: Home | None = None) -> str:
    """A preset's YAML as it stands, comments included.

    Raises:
        WorkbenchError: there is no such preset, or it cannot be read.
    """
    path = _path(name, home)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkbenchError(f"Cannot read the preset {path}: {error}.", "Fix or remove that file.") from None


def describe_preset(name: str, home: Home | None = None) -> PresetDescription:
    """Title, origin and advice out of the comments in front of a preset.

    Raises:
        WorkbenchError: there is no such preset, or it cannot be read.
    """
    paragraphs: list[str] = []
    for line in preset_text(name, home).splitlines():
        if not line.startswith("#"):
            break
        text = line[1:]
        if paragraphs and text.startswith("   "):
            paragraphs[-1] += " " + text.strip()
        else:
            paragraphs.append(text.strip())
    labelled = {label: text.strip() for label, colon, text in (p.partition(":") for p in paragraphs) if colon}
    title = paragraphs[0] if paragraphs and ":" not in paragraphs[0] else name
    own = not _path(name, home).is_relative_to(_SHIPPED)
    return PresetDescription(name, title, labelled.get("Origin", ""), labelled.get("Advice", ""), own)


def describe_presets(home: Home | None = None) -> list[PresetDescription]:
    """All presets as :func:`preset_names` orders them; the title of one that cannot be read says so."""
    found = []
    for name in preset_names(home):
        try:
            found.append(describe_preset(name, home))
        except WorkbenchError as error:
            found.append(PresetDescription(name, error.message, "", error.cure, own=True))
    return found


def save_preset(name: str, recipe: Recipe, home: Home, title: str = "", advice: str = "") -> Path:
    """Keep a recipe as a preset of the user's own, in the home's ``presets`` folder; one of that name is replaced.

    Raises:
        WorkbenchError: the name cannot be a file's, or the folder cannot be written to.
    """
    if not _NAME.fullmatch(name):
        raise WorkbenchError(
            f"{name!r} is not a valid preset name.",
            "Use letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit.",
            kind="preset",
        )
    comments = f"# {_one_line(title) or name}\n# Origin: saved from the workbench.\n"
    if advice:
        comments += f"# Advice: {_one_line(advice)}\n"
    path = _folder(home) / f"{name}.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, comments + recipe_text.to_yaml(recipe), private=True)
    except OSError as error:
        raise WorkbenchError(
            f"Cannot save the preset {path}: {error.strerror}.", "Free some space, or set another --home."
        ) from None
    return path


def _folder(home: Home) -> Path:
    return home.root / "presets"


def _path(name: str, home: Home | None) -> Path:
    # A name is no path: it must not lead out of the two folders.
    if _NAME.fullmatch(name):
        for folder in ([_folder(home)] if home else []) + [_SHIPPED]:
            path = folder / f"{name}.yaml"
            if path.is_file():
                return path
    near = next(iter(difflib.get_close_matches(name, preset_names(home), n=1)), None)
    raise WorkbenchError(
        f"There is no preset {name!r}.",
        (f"Did you mean {near}? " if near else "") + f"Available: {', '.join(preset_names(home))}.",
        kind="no_preset",
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
