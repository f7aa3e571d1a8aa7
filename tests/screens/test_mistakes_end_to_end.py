"""What can go wrong in a run, in the real app against the real engine: each time a sentence, and the app lives on."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from screens.app import WorkbenchApp
from tests.models.hub_server import Hub, serve
from tests.screens.test_end_to_end import at_rest, until, words
from workbench.engine.client.process import engine_pid, stop_engine
from workbench.recipe.schema import Recipe
from workbench.runs.folder import all_runs, summarise
from workbench.storage.paths import Home

pytestmark = pytest.mark.real_time


def squeezed(app: WorkbenchApp) -> str:
    """The words of the screen with frames and line breaks taken out, so that a folded sentence can be found."""
    lines = (line.strip(" │╭╮╰╯─┃▏") for line in words(app).splitlines())
    return " ".join(" ".join(lines).split())


def has_failed(home: Home, name: str) -> bool:
    """Whether a run of this name was started and has failed."""
    return any(run.id.startswith(name) and summarise(run).state == "failed" for run in all_runs(home))


def can_start(app: WorkbenchApp) -> bool:
    """Whether Enter starts a run on Train: none is about to start, and none is live as far as the app knows."""
    assert app.pane_in_front is not None
    return app.pane_in_front.check_action("start", ()) is True


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


async def test_each_mistake_is_a_sentence_and_the_app_lives_on(
    tmp_path: Path, recipe: Recipe, tiny_llama: Path, small_disk: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Hub()
    served.repos["someone/gated"] = tiny_llama
    served.gated.add("someone/gated")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"instruction": "a", "response": "b"}\n{"instruction": \n')
    mistakes = [
        ({"data.source": "/nowhere/data.jsonl"}, "No such file or folder: /nowhere/data.jsonl"),
        ({"data.source": str(broken)}, "line 2"),
        ({"model.source": "/nowhere/model"}, "No model at /nowhere/model"),
        ({"model.source": "someone/gated"}, "license"),
    ]
    if small_disk is not None:
        mistakes.append(({"output.dir": str(small_disk)}, "free on the disk"))
    home = Home(tmp_path / "home")
    with serve(served) as address:
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        app = WorkbenchApp(home)
        try:
            async with app.run_test(size=(120, 40)) as pilot:
                await until(pilot, lambda: app.pane_in_front is not None, "the first tab")
                await pilot.press("5")
                await until(pilot, lambda: app.pane_in_front.id == "train", "Train")
                for number, (changes, said) in enumerate(mistakes):
                    name = f"tiny{number}"
                    app.set_recipe({**recipe.as_dict(), "output": {"name": name}} | changes)
                    await until(pilot, lambda: can_start(app), "a key that starts")
                    await pilot.press("enter")
                    # The start card may name the mistake before the run does.
                    await until(pilot, lambda name=name: len(app.screen_stack) > 1 or has_failed(home, name), name)
                    await until(pilot, lambda said=said: said in squeezed(app), said)
                    await until(pilot, lambda: app.pane_in_front.check_action("start", ()), "the end of the run")
                    await at_rest(app, pilot)
                    while len(app.screen_stack) > 1:
                        await pilot.press("escape")
                        await pilot.pause()
                # The engine is killed in the middle of a run.
                app.set_recipe({**recipe.as_dict(), "output": {"name": "killed"}, "training.max_steps": 100000})
                await until(pilot, lambda: can_start(app), "a key that starts")
                await pilot.press("enter")
                await until(pilot, lambda: app.session.is_live, "a live run")
                run = next(run for run in all_runs(home) if run.id == "killed-01")
                await until(pilot, lambda: summarise(run).step >= 2, "two steps")
                os.kill(engine_pid(home), signal.SIGKILL)
                await until(pilot, lambda: "interrupted" in squeezed(app), "the death on the screen")
                # And the next run is as good as any.
                app.set_recipe({**recipe.as_dict(), "output": {"name": "after"}})
                await until(pilot, lambda: can_start(app), "a key that starts")
                await pilot.press("enter")
                await until(pilot, lambda: any(r.id == "after-01" for r in all_runs(home)), "another run")
                after = next(r for r in all_runs(home) if r.id == "after-01")
                await until(pilot, lambda: summarise(after).state == "finished", "its end")
        finally:
            await stop_engine(home)
