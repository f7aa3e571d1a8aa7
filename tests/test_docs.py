"""What the documentation names exists: files, folders, and the names in code that a contributor is sent to."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Pages that quote the files of others, by their names.
QUOTING = {"accuracy.md", "architectures.md", "models.md"}
# Files of other programs that the other pages name.
OTHERS = {"convert_hf_to_gguf.py"}
TOPS = ("bench", "docs", "presets", "screens", "tests", "workbench")


def named(page: Path) -> Iterator[str]:
    """The words in code style of a page that look like a path of this repository."""
    for word in re.findall(r"`([A-Za-z_0-9./<>-]+)`", page.read_text(encoding="utf-8")):
        is_ours = word.split("/")[0] in TOPS and "/" in word
        if is_ours or (re.search(r"\w\.(py|tcss)$", word) and page.name not in QUOTING):
            yield word


def files() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    return set(listed) or {
        str(path.relative_to(ROOT)) for top in TOPS for path in (ROOT / top).rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    known = files()
    places = known | {str(parent) for file in known for parent in Path(file).parents}
    places |= {place.removesuffix(".py") for place in places}

    def exists(word: str) -> bool:
        if "<" in word:
            pattern = re.compile("(.*/)?" + re.sub(r"<\w+>", "[^/]+", re.escape(word).replace(r"\<", "<")) + "$")
            return any(pattern.match(file) for file in known)
        path = word.rstrip("/")
        return any(place == path or place.endswith(f"/{path}") for place in places)

    assert [word for word in named(page) if word not in OTHERS and not exists(word)] == []


def test_every_name_that_a_contributor_is_sent_to_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = "\n".join(
        path.read_text(encoding="utf-8") for top in ("workbench", "screens") for path in (ROOT / top).rglob("*.py")
    )
    names = {
        word for word in re.findall(r"`([A-Za-z_]\w*(?:\.\w+)?)(?:\([a-z_]*\))?`", text)
        if "_" in word or re.search(r"[a-z][A-Z]", word) or word.isupper()
    }  # fmt: skip
    assert len(names) >= 10
    missing = [name for name in sorted(names) if not re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", code)]
    assert missing == []
