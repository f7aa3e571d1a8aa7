"""The palette: settings set by name and value, with their price; and all there is, found by any of its words."""

import time
from pathlib import Path

import pytest
from textual.widgets import Markdown

from screens import palette_library
from screens.palette import _score
from screens.palette_commands import Command, actions, everywhere, setting_commands
from screens.palette_library import library_commands
from screens.runs.pane import RunsPane
from tests.runs.told import finished
from tests.screens.piloting import NARROW, opened
from tests.screens.test_looks import app_on
from workbench.storage.paths import Home


async def test_a_setting_is_set_by_its_name_and_value(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        await screen.until(lambda: screen.app.session.skeleton is not None, "the module tree")
        await screen.press("ctrl+p", *"lr 1e-3")
        await screen.sees("Set learning_rate 2e-4 → 1e-3")
        await screen.press("enter")
        await screen.until(lambda: screen.app.session.recipe.training.learning_rate == 1e-3, "the learning rate")
        await screen.press("ctrl+p", *"rank 32")
        await screen.sees("Set r 16 → 32")
        await screen.sees("peak ")
        await screen.press("enter")
        await screen.until(lambda: screen.app.session.recipe.adapter.r == 32, "the rank")
        await screen.press("ctrl+z")
        assert screen.app.session.recipe.adapter.r == 16


async def test_names_labels_choices_and_yaml_are_understood(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        meant = {
            "r=8": "Set r 16 → 8",
            "variant dora": "Set use_dora off → on",
            "base 16-bit": "Set method nf4 → none",
            "packing on": "Set packing off → on",
            "targets q_proj,v_proj": "Set target_modules all-linear → [q_proj, v_proj]",
            "early_stopping_patience: 3": "Set early_stopping_patience 0 → 3",
            "max length 2k": "Set max_length 1024 → 2048",
            "adapter.lora_dropout 0": "Set lora_dropout 0.05 (default) → 0",
            "rank 16": "Set r is 16 already",
            "checkpoint 3": "Set save_total_limit 2 → 3",
        }
        for typed, name in meant.items():
            assert name in [command.name for command in setting_commands(screen.app, typed)], typed
        # What the recipe would refuse is not offered.
        for typed in ("rank 0", "rank many", "rank", "nothing 3", ""):
            assert not list(setting_commands(screen.app, typed)), typed


async def test_all_is_found_by_any_of_its_words(tmp_path: Path) -> None:
    run = finished(Home(tmp_path), "pirate")
    async with opened(tmp_path) as screen:
        await screen.tab("adapter")
        names = [command.name for command in [*actions(screen.app), *everywhere(screen.app)]]
        library = library_commands(screen.app)
        names += [command.name for command in library]
        for wanted in (
            "Chat: Regenerate",
            "Runs: Compare",
            "Setting: early stopping",
            "Recipe: demo",
            "Model: meta-llama/Llama-3.1-8B",
            "Data: first-mate",
            f"Run: {run.id}",
            "Docs: Training",
            "Undo",
        ):
            assert wanted in names
        by_name = {command.name: command for command in library}
        assert _score(by_name["Setting: early stopping"], ["without", "better", "loss"], "without better loss")
        assert not _score(by_name["Setting: early stopping"], ["without", "bananas"], "without bananas")
        # By a word of the help, with its key; the action opens its tab.
        await screen.press("ctrl+p", *"regenerate the last")
        await screen.sees("Chat: Regenerate")
        await screen.sees("R   Regenerate the last reply")
        await screen.press("escape", "escape", "ctrl+p", *"run pirate")
        await screen.sees(f"Run: {run.id}")
        await screen.press("enter")
        await screen.until(lambda: isinstance(screen.app.pane_in_front, RunsPane), "the history")
        await screen.press("ctrl+p", *"docs two processes")
        await screen.sees("Docs: Design")
        await screen.press("enter")
        await screen.until(lambda: screen.app.screen.query(Markdown), "the page")


def test_two_thousand_models_and_a_thousand_runs_are_searched_within_a_key() -> None:
    commands = [
        Command(f"Model: lab/model-{number}", lambda: None, "Use this model, in the catalog", weight=0.5)
        for number in range(3000)
    ]
    assert _score(commands[7], ["model-7"], "model-7") > _score(commands[7], ["catalog"], "catalog") > 0
    started = time.process_time()
    hits = [command for command in commands if _score(command, ["lab", "model-299"], "lab model-299")]
    assert len(hits) == 11
    # The first search lays the text out; the bound is for processor time, which a busy machine does not stretch.
    assert time.process_time() - started < 0.2


def test_a_home_without_docs_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(palette_library, "_DOCS", tmp_path / "none")
    assert not list(palette_library._docs(app_on(tmp_path)))
