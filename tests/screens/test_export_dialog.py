"""The export dialog: size and time ahead, a real export behind it, and mistakes that stay in it."""

import shutil
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from screens.runs.export_dialog import ExportDialog
from screens.runs.table import RunTable
from tests.helper_process import work_here
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.export import run as export_run
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """An adapter for the tiny Llama as PEFT writes it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, tiny_llama: Path, adapter: Path) -> RunFolder:
    """A finished run on the tiny Llama."""
    engine = ScriptedEngine(Home(tmp_path / "home"))
    run = engine.begin(edit(Recipe(), {"model.source": str(tiny_llama), "adapter.r": 4}), max_steps=1)
    engine.step(1, 2.0)
    engine.finish(step=1)
    shutil.rmtree(run.adapter, ignore_errors=True)
    shutil.copytree(adapter, run.adapter)
    return run


async def dialog_of(screen: Opened, run: RunFolder) -> ExportDialog:
    dialog = ExportDialog(screen.app.session.home, run)
    screen.app.push_screen(dialog)
    await screen.sees(f"Export {run.id}")
    return dialog


async def choose(screen: Opened, dialog: ExportDialog, folder: Path, label: str) -> None:
    options = dialog.query_one(OptionList)
    labels = [str(options.get_option_at_index(place).prompt) for place in range(options.option_count)]
    options.highlighted = labels.index(label)
    await screen.pilot.pause()
    dialog.query_one("#folder", Input).value = str(folder)


async def test_size_disk_and_time_stand_there_before_anything_is_done(tmp_path, run, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened(tmp_path / "home", size=NARROW) as screen:
        await dialog_of(screen, run)
        await screen.sees("to write")
        await screen.sees("about")
        await screen.sees("PEFT folder with template")
        await screen.press("down")
        await screen.sees("base with the adapter merged in")
        await screen.sees(" RAM, ")
        await screen.press("escape")
        await screen.until(lambda: not isinstance(screen.app.screen, ExportDialog), "closed")
        assert {entry.name for entry in tmp_path.iterdir()} == {"home"}


async def test_it_is_opened_from_the_history(tmp_path, run) -> None:
    async with opened(tmp_path / "home", size=WIDE) as screen:
        pane = await screen.tab("runs")
        await screen.until(lambda: pane.query_one(RunTable).row_count == 1, "the history")
        await screen.sees("E Export")
        await screen.press("E")
        await screen.sees(f"Export {run.id}")


async def test_an_adapter_is_written_and_told(tmp_path, run, monkeypatch) -> None:
    work_here(monkeypatch, export_run)
    async with opened(tmp_path / "home", size=WIDE) as screen:
        dialog = await dialog_of(screen, run)
        await choose(screen, dialog, tmp_path / "out", "vllm, adapter")
        await screen.press("enter")
        await screen.sees("--enable-lora")
        assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
        await screen.press("y")
        await screen.until(lambda: "vllm serve" in screen.app.clipboard, "the command in the clipboard")
        await screen.press("escape")
        await screen.until(lambda: not isinstance(screen.app.screen, ExportDialog), "closed")


@pytest.mark.usefixtures("fresh_processes")  # a merge is watched: one in a fork is over at once
async def test_a_merge_shows_its_check(tmp_path, run) -> None:
    async with opened(tmp_path / "home", size=WIDE) as screen:
        dialog = await dialog_of(screen, run)
        await choose(screen, dialog, tmp_path / "out", "merged")
        await screen.press("enter")
        await screen.until(lambda: dialog.is_busy, "at work")
        await screen.sees("x cancel and remove partial files")
        for _ in range(120):  # a process that imports torch takes its time
            if not dialog.is_busy:
                break
            await screen.pilot.pause(0.5)
        await screen.sees("Merged vs. base with adapter")


@pytest.mark.usefixtures("fresh_processes")  # a merge is watched: one in a fork is over at once
async def test_it_goes_on_in_the_background_and_its_result_is_there(tmp_path, run) -> None:
    async with opened(tmp_path / "home", size=WIDE) as screen:
        dialog = await dialog_of(screen, run)
        await choose(screen, dialog, tmp_path / "out", "merged")
        await screen.press("enter")
        await screen.until(lambda: dialog.is_busy, "at work")
        await screen.press("escape")
        await screen.until(lambda: not isinstance(screen.app.screen, ExportDialog), "closed")
        await screen.press("f4", "right")
        assert screen.app.session.recipe.adapter.r == 32, "the app is used meanwhile"
        for _ in range(120):  # a process that imports torch takes its time
            if not screen.app.jobs.running:
                break
            assert f"export of {run.id}" in screen.words
            await screen.pilot.pause(0.5)
        await screen.is_told(f"Export of {run.id} is finished")
        await dialog_of(screen, run)
        await screen.sees("Merged vs. base with adapter")


@pytest.mark.usefixtures("fresh_processes")  # a merge is watched: one in a fork is over at once
async def test_x_cancels_it_and_leaves_nothing(tmp_path, run) -> None:
    async with opened(tmp_path / "home", size=WIDE) as screen:
        dialog = await dialog_of(screen, run)
        await choose(screen, dialog, tmp_path / "place" / "out", "merged")
        await screen.press("enter")
        await screen.until(lambda: dialog.is_busy, "at work")
        await screen.press("x")
        await screen.sees("Cancelled.")
        await screen.until(lambda: not dialog.is_busy, "at rest")
        assert list((tmp_path / "place").iterdir()) == []
        assert isinstance(screen.app.screen, ExportDialog), "another target may be chosen"
        assert not screen.app.jobs.running


async def test_what_stands_in_the_way_is_told_at_once(tmp_path, run) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "[b]x").write_text("")
    async with opened(tmp_path / "home", size=WIDE) as screen:
        dialog = await dialog_of(screen, run)
        await choose(screen, dialog, tmp_path / "mine", "adapter")
        await screen.sees("no export wrote")
        await choose(screen, dialog, tmp_path / "out", "hub, adapter")
        await screen.sees("No hub repository given.")
        dialog.query_one("#repo", Input).value = "owner/name"
        await screen.sees("to write")
        shutil.rmtree(run.adapter)
        await choose(screen, dialog, tmp_path / "out2", "gguf, 8 bits")
        await screen.sees("There is no adapter")
        await screen.press("enter")
        await screen.until(lambda: not dialog.is_busy, "at rest")
        await screen.sees("There is no adapter")
