"""Lists, reads and saves presets: named recipes, shipped with the workbench or saved by the user.

A preset is a recipe's YAML file that starts with three comments, which :func:`describe_preset` reads::

    # Title
    # Origin: where it comes from, in one line.
    # Advice: when to use it; may continue
    #   on indented lines.
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
_LISTED_FIRST = ("demo",)


@dataclass(frozen=True)
class PresetDescription:
    """The comments of a preset. ``own``: saved by the user, not shipped."""

    name: str
    title: str
    origin: str
    advice: str
    own: bool = False


def preset_names(home: Home | None = None) -> list[str]:
    """Names of the shipped presets, the demo first, then of the user's own.

    A preset saved by the user replaces a shipped one of the same name.
    """
    shipped = sorted(
        (path.stem for path in _SHIPPED.glob("*.yaml")), key=lambda name: (name not in _LISTED_FIRST, name)
    )
    own = [path.stem for path in entries(_folder(home)) if path.suffix == ".yaml"] if home else []
    return [*shipped, *(name for name in own if name not in shipped)]


def load_preset(name: str, home: Home | None = None) -> Recipe:
    """Read the recipe of a preset.

    Raises:
        WorkbenchError: there is no such preset.
        RecipeError: the recipe has mistakes; the error lists all of them.
    """
    return recipe_text.read(_path(name, home))


def preset_text(name: str, home: Home | None = None) -> str:
    """Read a preset's YAML text, comments included.

    Raises:
        WorkbenchError: there is no such preset, or it cannot be read.
    """
    path = _path(name, home)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkbenchError(f"Cannot read the preset {path}: {error}.", "Fix or remove that file.") from None


def describe_preset(name: str, home: Home | None = None) -> PresetDescription:
    """Read title, origin and advice from a preset's comments.

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
    labeled = {label: text.strip() for label, colon, text in (p.partition(":") for p in paragraphs) if colon}
    title = paragraphs[0] if paragraphs and ":" not in paragraphs[0] else name
    own = not _path(name, home).is_relative_to(_SHIPPED)
    return PresetDescription(name, title, labeled.get("Origin", ""), labeled.get("Advice", ""), own)


def describe_presets(home: Home | None = None) -> list[PresetDescription]:
    """Describe all presets, in the order of :func:`preset_names`. For an unreadable one, the title is the error."""
    descriptions = []
    for name in preset_names(home):
        try:
            descriptions.append(describe_preset(name, home))
        except WorkbenchError as error:
            descriptions.append(PresetDescription(name, error.message, "", error.cure, own=True))
    return descriptions


def save_preset(name: str, recipe: Recipe, home: Home, title: str = "", advice: str = "") -> Path:
    """Save a recipe as a preset in the home's ``presets`` folder, replacing one of the same name.

    Raises:
        WorkbenchError: the name is not valid, or the folder cannot be written to.
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
    # The pattern keeps a name from being a path out of these two folders.
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
