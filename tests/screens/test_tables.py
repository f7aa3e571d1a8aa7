"""The tables of models and runs: columns by width, filters, order, thousands of rows, columns chosen by the user."""

import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import pytest

from screens.models.pane import ModelsPane
from screens.models.rows import ModelRow
from screens.models.table import COLUMNS, ModelTable, sorted_rows
from screens.runs.facts import column_text
from screens.runs.table import RunTable
from screens.shell.fit import Fit
from screens.widgets.lazy_table import fitting_columns
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.test_runs_pane import history, trained
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.library.comparison import RunMetrics, best_metrics
from workbench.runs.library.listing import ORDERS
from workbench.runs.summary import RunSummary
from workbench.storage.paths import Home

GIB = 2**30
HERE = ModelRow("own/here", "here", 8_000_000_000, "LlamaForCausalLM", "llama", "mit", size_on_disk=16 * GIB)
HUB = ModelRow("big/gated", "hub", 70_000_000_000, "LlamaForCausalLM", "llama", "llama3", gated=True)
SMALL = ModelRow("a/small", "hub", 500_000_000, "Qwen2ForCausalLM", "qwen2", "apache-2.0", context_length=32768)
FITS = {
    "own/here": Fit("tight", "warning", "Tight.", 20 * GIB, 21 * GIB),
    "big/gated": Fit("no", "error", "No.", 90 * GIB, 21 * GIB),
}


@pytest.fixture(autouse=True)
def _empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)


def test_columns_drop_out_before_the_name_is_cut() -> None:
    name = next(column for column in COLUMNS if column.key == "model")
    for room in range(46, 200):
        shown = dict(fitting_columns(COLUMNS, room))
        assert shown[name] >= name.width
        assert sum(shown.values()) + len(shown) <= room
    assert [column.key for column, _ in fitting_columns(COLUMNS, 46)] == ["mark", "model", "fits"]
    assert len(fitting_columns(COLUMNS, 160)) == len(COLUMNS)


@pytest.mark.parametrize(
    ("by", "turned", "order"),
    [
        ("", False, [HERE, HUB, SMALL]),
        ("size", False, [SMALL, HERE, HUB]),
        ("size", True, [HUB, HERE, SMALL]),
        ("needs", False, [HERE, HUB, SMALL]),
        ("margin", False, [HERE, HUB, SMALL]),
        ("margin", True, [HUB, HERE, SMALL]),
        ("license", False, [SMALL, HUB, HERE]),
        ("context", True, [SMALL, HERE, HUB]),
    ],
)
def test_models_are_sorted_by_a_column_and_those_without_a_value_come_last(
    by: str, turned: bool, order: list[ModelRow]
) -> None:
    assert sorted_rows([HERE, HUB, SMALL], FITS, by, turned=turned) == order


async def many(screen: Opened, count: int) -> ModelsPane:
    """Models with so many rows."""
    pane = screen.app.pane_in_front
    assert isinstance(pane, ModelsPane)
    await screen.until(lambda: pane._all, "the list")
    pane._all = [HERE, HUB, SMALL, *(replace(SMALL, source=f"many/model-{n}") for n in range(count - 3))]
    pane._fill()
    await screen.sees("own/here")
    return pane


async def test_two_thousand_models_are_filtered_and_sorted_at_each_key(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        pane = await many(screen, 2000)
        table = pane.query_one(ModelTable)
        assert table.row_count > 1990
        before = perf_counter()
        for _ in range(10):
            pane._fill()
        # A tenth of a second each, on a machine that does other things: rows out of view are not made.
        assert (perf_counter() - before) / 10 < 0.1
        await screen.press("end")
        await screen.sees("many/model-1996")
        await screen.press("home", "right")
        await screen.sees("on this machine 1")
        await screen.until(lambda: pane._rows == [HERE], "those on this machine")
        await screen.press("escape", *"model-77", "down")
        await screen.until(lambda: table.row_count == 11, "model-77, model-770 to model-779")
        await screen.press("escape", "escape", ">", ">")
        await screen.sees("size")
        await screen.until(lambda: (table.by == "size" and pane._rows[-1].parameters is None) or pane._rows, "sorted")
        assert [row.parameters for row in pane._rows[:3]] == sorted(row.parameters or 0 for row in pane._rows[:3])
        await screen.press("!")
        await screen.until(lambda: pane._rows[0] is HUB, "the largest first")


async def test_columns_of_runs_are_chosen_and_kept(tmp_path: Path) -> None:
    engine = trained(tmp_path, edit(Recipe(), {"adapter.r": 48, "training.learning_rate": 3e-4}))
    async with opened(tmp_path, engine=engine, size=NARROW) as screen:
        await history(screen, 1)
        assert "3e-4" not in screen.words
        await screen.press("|")
        await screen.sees("Columns")
        await screen.press(*["down", "down", "space"], *["down", "space"])
        await screen.press("enter")
        await screen.until(lambda: screen.app.session.settings.run_columns is not None, "the choice")
        screen.app.session.remember(run_columns=["r", "lr", "best loss"])
        screen.app.session.save()
        assert json.loads(Home(tmp_path).settings.read_text())["run_columns"] == ["r", "lr", "best loss"]
    async with opened(tmp_path, engine=engine, size=NARROW) as screen:
        await history(screen, 1)
        await screen.sees("best loss")
        line = next(line for line in screen.words.splitlines() if "run-01" in line)
        assert line.split()[-3:] == ["48", "3e-4", "0.993"]


async def test_a_wide_terminal_shows_more_columns_of_runs(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=trained(tmp_path), size=(200, 50)) as screen:
        await history(screen, 1)
        shown = screen.app.query_one(RunTable).shown_columns
        assert {"r", "lr", "best loss", "tok/s", "duration"} <= set(shown)
    async with opened(tmp_path, engine=trained(tmp_path), size=WIDE) as screen:
        await history(screen, 2)
        assert screen.app.query_one(RunTable).shown_columns[-1] == "tags"


def test_every_column_of_runs_has_a_text_and_an_order() -> None:
    settings = {
        "adapter.r": 8, "training.learning_rate": 1e-4, "adapter.target_modules": ["q_proj", "v_proj"],
        "data.source": "/a/own.jsonl",
    }  # fmt: skip
    summary = RunSummary(
        "run", state="finished", started=1.0, ended=3601.0, tokens_per_second=1234.0, peak_vram=3 * GIB,
        perplexities=[(0, 9.0), (10, 2.718281828), (20, 7.39)], settings=settings,
    )  # fmt: skip
    texts = {name: column_text(summary, name) for name in ("r", "lr", "targets", "data", "best loss", "tok/s", "peak")}
    assert texts == {
        "r": "8", "lr": "1e-4", "targets": "q,v", "data": "own.jsonl", "best loss": "1.000", "tok/s": "1.23k",
        "peak": "3.0 GiB",
    }  # fmt: skip
    assert column_text(summary, "duration") == "1:00:00"
    known = {"state", "run", "steps", "loss", "perplexity", "started", "model", "tags", "duration", *texts}
    assert ORDERS.keys() == known


def test_the_best_values_of_compared_runs_are_marked() -> None:
    one = RunMetrics(RunSummary("a", loss=1.0, tokens=1000, peak_vram=GIB), best=(0.5, 10), seconds=10.0)
    two = RunMetrics(RunSummary("b", loss=2.0, tokens=4000, peak_vram=GIB), best=(0.5, 20), seconds=20.0)
    assert best_metrics([one, two]) == {"last loss": {0}, "tokens/s": {1}}
