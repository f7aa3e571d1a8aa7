"""Runs told in a table: a column for each where that has place, else a line for each; no cell is cut in two."""

from io import StringIO

from rich.console import Console

from screens.runs.comparison_table import table_of
from workbench.runs.library.comparison import Rows

FIGURES: Rows = [
    ("state", ["finished", "finished", "stopped", "failed", "running"]),
    ("best held-out loss", ["1.234 at 40", "1.301 at 60", "1.222 at 120", "–", "1.5 at 20"]),
    ("perplexity", ["20.1 → 3.43", "20.1 → 3.67", "20.1 → 3.39", "–", "20.1"]),
    ("tokens", ["1,234,567", "2,345,678", "34,567", "120", "9,876,543"]),
    ("peak VRAM predicted", ["5.20 GiB", "5.31 GiB", "5.92 GiB", "5.20 GiB", "6.01 GiB"]),
    ("training.per_device_train_batch_size", ["4", "4", "8", "4", "16"]),
]
NAMES = ["low rank", "run-02", "a name that somebody made up at length", "船長", "run-05"]


def drawn(names: list[str], rows: Rows, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(table_of("results", names, rows, width, "cyan"))
    file = console.file
    assert isinstance(file, StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_where_the_columns_have_place_each_run_is_one() -> None:
    lines = drawn(NAMES[:2], [(label, cells[:2]) for label, cells in FIGURES], 80)
    assert lines[0].split("  ")[0] == "results"
    assert lines[0].endswith("A low rank   B run-02")
    assert [line.split()[0] for line in lines[1:]] == ["state", "best", "perplexity", "tokens", "peak", FIGURES[-1][0]]


def test_where_they_have_none_each_run_is_a_line_and_every_cell_is_whole() -> None:
    for width in (75, 60, 40):
        lines = drawn(NAMES, FIGURES, width)
        assert max(map(len, lines)) <= width
        for _, cells in FIGURES:
            for letter, cell in zip("ABCDE", cells, strict=True):
                assert any(line.startswith(f"{letter} ") and cell in line for line in lines), (width, letter, cell)
    # Of a label no word is cut either, where the longest has place.
    words = " ".join(drawn(NAMES, FIGURES, 60))
    assert all(word in words for word in ("held-out", "perplexity", "training.", "per_device_train_batch_size"))


def test_a_long_list_has_several_lines_and_leaves_the_others_their_place() -> None:
    modules = ", ".join(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
    rows: Rows = [("adapter.r", ["8", "16", "32", "64"]), ("adapter.target_modules", [modules, "all-linear", "–", "–"])]
    lines = drawn(NAMES[:4], rows, 75)
    assert any(line.startswith("A low rank") and " 8 " in line for line in lines)
    assert "gate_proj" in " ".join(lines)
    assert any("all-linear" in line and line.startswith("B run-02") for line in lines)
