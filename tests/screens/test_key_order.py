"""Keys that arrive in one packet: each goes to the screen that the keys before it have opened."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from textual.widgets import DataTable, Input, OptionList

from screens.dialogs.help import HelpScreen
from screens.models.table import ModelTable
from screens.runs.export_dialog import ExportDialog
from tests.screens.piloting import Opened, opened
from tests.screens.scripted import ScriptedEngine
from tests.screens.test_data_pane import jsonl
from tests.screens.test_runs_pane import history, trained
from workbench.engine.client.protocol import DeviceFacts
from workbench.machine.gpu import GpuSample
from workbench.models.catalog import catalog_skeleton
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

GIB = 2**30
ROOT = Path(__file__).parents[2]
F1, F10, DOWN, CTRL_P = "\x1bOP", "\x1b[21~", "\x1b[B", "\x10"


def is_bare(screen: Opened) -> bool:
    return len(screen.app.screen_stack) == 1


async def test_text_and_enter_go_to_the_palette_and_to_the_dialog_that_its_command_opens(tmp_path: Path) -> None:
    async with opened(tmp_path, tab="adapter") as screen:
        await screen.packet(f"{CTRL_P}lr 3e-4\r")
        await screen.until(lambda: screen.app.session.recipe.training.learning_rate == 3e-4, "the learning rate")
        # The list of presets is read in a thread: the key after it waits.
        await screen.packet(f"{CTRL_P}presets\r{DOWN}\r")
        await screen.is_told("Loaded preset")
        assert is_bare(screen)


async def test_a_name_typed_with_its_key_replaces_the_old_one(tmp_path: Path) -> None:
    async with opened(tmp_path, tab="train") as screen:
        await screen.packet("Npirate\r")
        await screen.until(lambda: screen.app.session.recipe.output.name == "pirate", "the name")
        assert is_bare(screen)


async def test_text_after_the_key_of_a_search_is_searched(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.until(lambda: screen.app.query_one(ModelTable).row_count, "the list")
        await screen.packet("/smollm2-135")
        await screen.until(lambda: screen.app.query_one(Input).value == "smollm2-135", "the whole text")


async def test_keys_reach_settings_help_and_the_export_that_are_opened_with_them(tmp_path: Path) -> None:
    async with opened(tmp_path, tab="runs", engine=trained(tmp_path)) as screen:
        before = screen.app.session.settings.notify
        await screen.packet(f"{F10}{DOWN}\r")
        await screen.until(lambda: screen.app.session.settings.notify is not before, "the second setting is switched")
        # The settings are closed, and help is opened on the tab; then both again, the other way round.
        await screen.packet(f"{F10}{F1}")
        await screen.until(lambda: isinstance(screen.app.screen, HelpScreen), "the help")
        await screen.sees("Help: Runs")
        await screen.packet(f"{F1}{F10}{F10}")
        await screen.until(lambda: is_bare(screen), "nothing in front of the tab")
        await history(screen, 1)
        await screen.packet(f"E{DOWN}{DOWN}")
        await screen.until(lambda: isinstance(screen.app.screen, ExportDialog), "the export")
        await screen.until(lambda: screen.app.screen.query_one(OptionList).highlighted == 2, "the third target")


async def test_an_answer_goes_to_the_question_that_was_not_there_yet(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    async with opened(tmp_path, tab="runs", engine=engine) as screen:
        await history(screen, 1)
        await screen.packet("dy")
        await screen.until(lambda: not screen.app.query_one(DataTable).row_count, "the run is deleted")
        engine.begin(Recipe(), max_steps=100)
        engine.phase("training", 0.0, max_steps=100)
        engine.step(12, 2.0)
        await screen.until(lambda: screen.app.session.is_live, "the live run")
        await screen.packet("5sy")
        await screen.until(lambda: "stop" in " ".join(engine.asked), "the run is stopped")


async def test_the_answer_of_a_start_waits_for_its_checks(tmp_path: Path) -> None:
    tree = catalog_skeleton(Recipe().model.source)
    engine = ScriptedEngine(Home(tmp_path), skeleton=tree)
    engine.backend.device = DeviceFacts(kind="cuda", name="scripted", total_bytes=16 * GIB)
    async with opened(tmp_path, tab="train", engine=engine) as screen:
        screen.app.session.skeleton = tree
        screen.app.session.gpus = (GpuSample(0, "NVIDIA T4", 16 * GIB, 15 * GIB, GIB // 8),)
        await screen.packet("\ry")
        await screen.until(lambda: "train" in engine.asked, "started anyway")


async def test_columns_are_mapped_by_keys_that_arrive_with_the_one_that_asks(tmp_path: Path) -> None:
    records = jsonl(tmp_path / "own.jsonl", [{"q": "a", "x": "b"}] * 4)
    async with opened(tmp_path / "home", tab="data") as screen:
        screen.app.set_recipe({"data.source": str(records)})
        # p: the first column is the prompt; then the next column is the response.
        await screen.packet(f"mp{DOWN}r\r")
        await screen.until(
            lambda: screen.app.session.recipe.data.columns == {"prompt": "q", "reply": "x"}, "the mapping"
        )
        assert is_bare(screen)


@pytest.mark.real_time
def test_a_whole_session_in_one_packet_of_a_real_terminal(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "workbench.cli", "--home", str(tmp_path)]
    (tmp_path / "settings.json").write_text(json.dumps({"recipe": Recipe().as_dict(), "tab": "train"}))
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as app:
        os.close(terminal)
        shown = b""
        while b"run name" not in shown:
            shown += os.read(main, 65536)
        os.write(main, f"Npirate\r{CTRL_P}rank 32\r{F10}{DOWN}\r\x1b[21~\x11".encode())
        try:
            while os.read(main, 65536):
                pass
        except OSError:  # the other end is closed
            os.close(main)
        assert app.wait(60) == 0
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["recipe"]["output"]["name"] == "pirate"
    assert settings["recipe"]["adapter"]["r"] == 32
    assert settings["notify"] is False
