"""The real app against the real engine on a tiny Llama: chosen, priced, trained, talked to, left.

On a small terminal; test_mistakes_end_to_end.py has a wide one.
"""

import asyncio
import re
from pathlib import Path

import pytest

from screens.adapter.cost_panel import CostPanel
from screens.app import WorkbenchApp
from tests.journals import read_events
from workbench.engine.client.process import engine_pid, find_engine, stop_engine
from workbench.recipe.schema import Recipe
from workbench.runs.folder import all_runs, summarise
from workbench.storage.paths import Home

pytestmark = pytest.mark.real_time


async def until(pilot, condition, what, seconds=120.0):
    """Wait for a condition while the app goes on; a bounded time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)
            await pilot.pause()
    assert condition(), what


async def at_rest(app, pilot) -> None:
    """Wait until the engine has nothing to do, a moment after what it did can be seen, and the app knows it."""
    async with asyncio.timeout(120):
        while (status := await find_engine(app.session.home)) is not None and status.state != "idle":
            await asyncio.sleep(0.05)
    await until(pilot, lambda: app.session.status is None or app.session.status.state == "idle", "the app knows")


def words(app) -> str:
    """All that stands on the screen."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def test_from_the_model_to_the_chat(tmp_path: Path, recipe: Recipe) -> None:
    home = Home(tmp_path / "home")
    app = WorkbenchApp(home)
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: app.pane_in_front is not None, "the first tab")
            # 1: choose the model, by typing where it is.
            await pilot.press("slash", *_keys(recipe.model.source), "enter")
            await until(
                pilot, lambda: app.session.recipe.model.source == recipe.model.source, "the model in the recipe"
            )
            await until(pilot, lambda: app.session.skeleton is not None, "its module tree")
            assert app.session.skeleton.architecture == "LlamaForCausalLM"
            # 3: change r by keys and see the numbers change.
            await pilot.press("escape", "3")
            await until(pilot, lambda: app.pane_in_front.id == "adapter" and _trainable(app), "the costs")
            before = _trainable(app)
            await pilot.press("right")
            await until(pilot, lambda: app.session.recipe.adapter.r == 32, "r")
            await until(pilot, lambda: _trainable(app) == 2 * before, "twice the parameters")
            # The rest of the recipe is the test's own: a few quick steps.
            problems = app.set_recipe(
                {
                    "data.source": recipe.data.source,
                    "data.max_length": 64,
                    "training.max_steps": 30,
                    "training.gradient_accumulation_steps": 1,
                    "training.learning_rate": 0.01,
                    "training.gradient_checkpointing": False,
                    "adapter.lora_dropout": 0.0,
                    "adapter.lora_alpha": 32,
                    "output.name": "tiny",
                }
            )
            assert problems == []
            # F6, as digits are typed into the setting with the cursor: train and see the loss fall.
            await pilot.press("f6")
            await until(pilot, lambda: app.pane_in_front.id == "train", "Train")
            await pilot.press("enter")
            await until(pilot, lambda: all_runs(home), "a run")
            (run,) = all_runs(home)
            await until(pilot, lambda: summarise(run).ended is not None, "its end")
            await at_rest(app, pilot)
            losses = [event["loss"] for event in read_events(run.journal) if event["event"] == "step"]
            assert summarise(run).state == "finished"
            assert len(losses) == 30
            assert losses[-1] < losses[0] / 4
            await until(pilot, lambda: "30 steps" in words(app) or "finished" in words(app), "its end on the screen")
            # 6: chat with the result.
            await pilot.press("6")
            await until(pilot, lambda: app.pane_in_front.id == "chat", "Chat")
            await pilot.press("enter", *_keys("Question 3?"), "enter")
            await until(pilot, lambda: "tok/s" in words(app), "the end of the reply")
            assert "Question 3?" in words(app)
            # 7: it is in the history.
            await pilot.press("escape", "7")
            await until(pilot, lambda: app.pane_in_front.id == "runs" and run.id in words(app), "the history")
            await at_rest(app, pilot)
            await pilot.press("ctrl+q")
            await until(pilot, lambda: not app.is_running, "the end of the app")
        # It had nothing to do any more.
        async with asyncio.timeout(60):
            while engine_pid(home) is not None:
                await asyncio.sleep(0.05)
    finally:
        await stop_engine(home)


def _keys(text: str) -> list[str]:
    """A text as key presses."""
    names = {"/": "slash", ".": "full_stop", "-": "minus", "_": "underscore", " ": "space", "?": "question_mark"}
    return [names.get(character, character) for character in text]


def _trainable(app: WorkbenchApp) -> int | None:
    """The figure on the screen; None where there is none."""
    shown = app.query_one(CostPanel)
    text = "\n".join("".join(segment.text for segment in shown.render_line(y)) for y in range(shown.size.height))
    figure = re.search(r"trainable\s+([\d,]+)", text)
    return int(figure[1].replace(",", "")) if figure else None
