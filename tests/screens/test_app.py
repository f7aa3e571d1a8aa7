"""The shell: tabs, the recipe, the run that is live, and leaving."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Button, Input

from screens.dialogs import quitting
from screens.dialogs.help import HelpScreen
from screens.dialogs.questions import ChoiceDialog, ErrorDialog
from screens.forms.row import SettingRow
from screens.messages import StatusChanged
from screens.session import Session
from screens.shell import watch
from screens.shell.header import HeaderBar, short_gpu
from screens.shell.run_bar import RunBar
from screens.shell.terminal_signals import notification
from screens.widgets.ascii_filter import in_ascii
from tests.runs.told import finished
from tests.screens.piloting import NARROW, WIDE, opened
from tests.screens.scripted import ScriptedEngine, broken_off
from tests.screens.test_runs_pane import history
from workbench.engine.client.protocol import EngineStatus
from workbench.errors import WorkbenchError
from workbench.machine.gpu import GpuSample
from workbench.machine.host import HostSample
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

GIB = 2**30


def in_front(app: object) -> str | None:
    pane = app.pane_in_front  # type: ignore[attr-defined]
    return pane.id if pane is not None else None


async def test_a_fresh_home_opens_on_models_and_says_what_to_press(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        assert in_front(screen.app) == "models"
        await screen.sees("To fine-tune it here: Enter, then 5, then Enter.")


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_digits_switch_tabs_and_the_header_keeps_the_recipe(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(tmp_path, size=size) as screen:
        for key, name in (("2", "architecture"), ("3", "adapter"), ("f2", "models")):
            await screen.press(key)
            await screen.until(lambda name=name: in_front(screen.app) == name, name)
        await screen.until(lambda: "SmolLM2-135M-Instruct" in screen.words.splitlines()[0], "as it should stand")


async def test_only_the_shown_pane_is_told_and_a_shown_one_catches_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        adapter = await screen.tab("adapter")
        await screen.tab("models")
        assert not adapter.is_shown
        screen.app.set_recipe({"adapter.r": 64})
        await screen.pilot.pause()
        rank = adapter.query(SettingRow).first()
        assert "64" not in rank.render().plain.split()[2:3]
        await screen.tab("adapter")
        assert rank.render().plain.split()[:3] == ["❯•rank", "r", "64"]


async def test_in_a_text_field_digits_are_text_until_escape(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.press("slash", "3", "b")
        field = screen.app.query_one(Input)
        assert (in_front(screen.app), field.value) == ("models", "3b")
        for key, tab in (("f4", "adapter"), ("f8", "runs"), ("f2", "models")):
            await screen.press(key)
            assert in_front(screen.app) == tab
        field.focus()
        await screen.press("escape", "2")
        await screen.until(lambda: in_front(screen.app) == "architecture", "escape and a digit")


async def test_only_keys_that_every_terminal_sends_are_promised(tmp_path: Path) -> None:
    """What xterm, tmux and the macOS terminal send as it stands: no Alt, no Ctrl with a digit, no F1 … F12 with others.

    A terminal without the kitty protocol sends Alt and 3 as Esc and 3, or, on a Mac, as £.
    """
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert "`Alt`" not in readme
    async with opened(tmp_path) as screen:
        for tab in screen.app.tabs:
            await screen.tab(tab.id)
            keys = [binding.key for _, binding, *_ in screen.app.screen.active_bindings.values()]
            assert not [key for key in keys if "alt+" in key or re.fullmatch(r"ctrl\+(shift\+.|\d)", key)], tab
        await screen.press("f1")
        await screen.sees("F2 … F8")
        assert "Alt" not in screen.words
        # The tabs stay where they are behind a dialog.
        await screen.press("f3", "escape")
        assert in_front(screen.app) == "runs"


async def test_a_mistake_changes_nothing_and_is_handed_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        before = screen.app.session.recipe
        problems = screen.app.set_recipe({"adapter.r": 0, "adapter.lora_dropout": 2.0})
        assert [problem.path for problem in problems] == ["adapter.r", "adapter.lora_dropout"]
        assert screen.app.session.recipe is before


async def test_recipe_tab_and_theme_are_there_again_in_the_next_terminal(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.set_recipe({"adapter.r": 128})
        await screen.tab("architecture")
        screen.app.toggle_theme()
        await screen.app.action_quit()
    async with opened(tmp_path) as screen:
        assert screen.app.session.recipe.adapter.r == 128
        assert screen.app.session.recipe.adapter.alpha_is_linked
        assert in_front(screen.app) == "architecture"
        assert screen.app.theme == "workbench-light"


@pytest.mark.parametrize("text", ["", "[1]", '{"recipe": {"adapter": {"r": "many"}}}', '{"recipe": []}', "\x00"])
def test_damaged_settings_start_anew(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    home.settings.write_text(text)
    session = Session(home, ScriptedEngine(home))
    session.load()
    assert session.recipe == Recipe()


async def test_with_a_run_live_the_app_opens_on_train(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.set_recipe({"adapter.r": 128})
        await screen.tab("adapter")
        await screen.app.action_quit()
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe())
    engine.phase("training", 0.0, max_steps=100)
    engine.step(12, 2.0)
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        assert in_front(screen.app) == "train"
        await screen.sees("step 12/100")
    engine.finish(step=100)
    async with opened(tmp_path, engine=engine) as screen:
        assert in_front(screen.app) == "adapter", "the last tab again"


async def test_a_live_run_has_its_line_and_quitting_asks(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        run = screen.engine.begin(Recipe(), max_steps=200)
        screen.engine.step(50, 1.25)
        bar = screen.app.query_one(RunBar)
        await screen.until(lambda: "step 50/200" in bar.text.plain, "the step in the run bar")
        assert bar.has_class("-live")
        assert f"run {run.id}" in bar.text.plain
        assert "loss 1.250" in bar.text.plain
        assert "ETA 01:15" in bar.text.plain

        await screen.press("ctrl+q")
        assert isinstance(screen.app.screen, ChoiceDialog)
        await screen.press("n")
        assert not isinstance(screen.app.screen, ChoiceDialog)
        assert screen.app.is_running

        screen.engine.finish()
        await screen.until(lambda: not bar.has_class("-live"), "the run bar goes with the run")


async def test_the_terminal_is_told_once_when_the_run_that_was_watched_ends(tmp_path: Path) -> None:
    finished(Home(tmp_path), "earlier")
    async with opened(tmp_path) as screen:
        rung: list[str] = []
        screen.app.tell_terminal = rung.append
        for number in (1, 2):
            screen.engine.begin(Recipe(), max_steps=200)
            screen.engine.step(50, 1.25)
            await screen.until(lambda: screen.app._watched_run.id is not None, "the run")
            assert len(rung) == number - 1
            screen.engine.finish()
            await screen.until(lambda number=number: len(rung) == number, "the bell")
        await screen.until(lambda: not screen.app.session.is_live, "the engine is idle")
        assert len(rung) == 2
        assert "\x1b]2;run-02 finished, step 50/200, loss 1.250" in rung[1]
        assert rung[1].endswith("\x07")
        screen.app.session.remember(notify=False)
        screen.engine.begin(Recipe(), max_steps=200)
        await screen.until(lambda: screen.app._watched_run.id is not None, "another run")
        screen.engine.finish()
        await screen.until(lambda: screen.app._watched_run.id is None, "its end")
        assert len(rung) == 2, "the user does not want it"


@pytest.mark.parametrize(
    ("environ", "sequence"),
    [
        ({"TERM": "xterm-256color"}, "\x1b]9;a;b finished: loss 1␛]\x07"),
        ({"TERM": "foot"}, "\x1b]777;notify;a,b finished;loss 1␛]\x07"),
        ({"TERM": "xterm", "VTE_VERSION": "7600"}, "\x1b]777;notify;a,b finished;loss 1␛]\x07"),
        ({"TERM": "screen", "TMUX": "/tmp/x"}, "\x1bPtmux;\x1b\x1b]9;a;b finished: loss 1␛]\x07\x1b\\"),
    ],
)
def test_each_terminal_is_told_in_its_own_way(environ: dict[str, str], sequence: str) -> None:
    assert notification("a;b finished", "loss 1\x1b]", environ) == f"{sequence}\x1b]2;a;b finished, loss 1␛]\x07\x07"


async def test_a_run_that_broke_off_is_told_with_the_key_that_resumes_it(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=broken_off(tmp_path)) as screen:
        await screen.is_told("run-01 was interrupted at step 12/100")
        await screen.is_told("g resumes it")


async def test_quitting_asks_about_a_run_that_has_only_just_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "STATUS_SECONDS", 600.0)
    async with opened(tmp_path) as screen:
        run = screen.engine.begin(Recipe())
        assert not screen.app.session.is_live, "the app knows of the run already"
        await screen.press("ctrl+q")
        await screen.sees(f"{run.id} is still training")
        assert "shutdown" not in screen.engine.asked
        assert not screen.engine.closed


async def test_an_engine_that_does_not_answer_holds_nobody_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quitting, "ASK_SECONDS", 0.05)
    async with opened(tmp_path) as screen:

        async def silent() -> EngineStatus:
            await asyncio.Event().wait()
            raise AssertionError

        screen.engine.status = silent  # type: ignore[method-assign]
        await screen.press("ctrl+q")
        await screen.until(lambda: screen.engine.closed, "the end")


@pytest.mark.parametrize(("key", "asked"), [("y", []), ("s", ["stop"])])
async def test_the_answer_on_quitting_decides_over_the_run(tmp_path: Path, key: str, asked: list[str]) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.begin(Recipe())
        await screen.until(lambda: screen.app.session.is_live, "the run is known")
        await screen.press("ctrl+q", key)
        await screen.until(lambda: screen.engine.closed, "the connection is closed")
        assert [word for word in screen.engine.asked if word in ("stop", "discard", "shutdown")] == asked


async def test_an_idle_engine_ends_with_the_terminal_and_a_busy_one_does_not(tmp_path: Path) -> None:
    async with opened(tmp_path / "idle") as screen:
        await screen.press("ctrl+q")
        await screen.until(lambda: screen.engine.closed, "the connection is closed")
        assert "shutdown" in screen.engine.asked
    async with opened(tmp_path / "busy") as screen:
        screen.engine.replies_elsewhere()
        await screen.until(lambda: screen.app.session.status.state == "replying", "the reply")  # type: ignore[union-attr]
        await screen.press("ctrl+q")
        await screen.until(lambda: screen.engine.closed, "the connection is closed")
        assert "shutdown" not in screen.engine.asked


async def test_an_engine_that_goes_away_leaves_the_app_alive(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.running = False
        await screen.until(lambda: screen.app.session.status is None, "the engine is missed")
        await screen.until(lambda: "off" in screen.words.splitlines()[0], "as it should stand")
        screen.app.attempt(screen.engine.unload())
        await screen.sees("The engine does not answer.")
        await screen.press("escape", "2")
        await screen.until(lambda: in_front(screen.app) == "architecture", "the app still works")


async def test_an_error_is_shown_with_its_cure_and_cannot_style_the_screen(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.show_error(WorkbenchError("[red]No model[/] \x1b[2J here.", "Press [b]1[/b]."))
        await screen.pilot.pause()
        assert isinstance(screen.app.screen, ErrorDialog)
        await screen.sees("[red]No model[/] ␛[2J here.")
        await screen.sees("Press [b]1[/b].")
        await screen.press("escape")
        assert not isinstance(screen.app.screen, ErrorDialog)


async def test_help_names_what_can_be_done_here(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.press("f1")
        assert isinstance(screen.app.screen, HelpScreen)
        words = " ".join(screen.words.split())
        for part in ("Help: Models", "Use this model in the recipe"):
            assert part in words
        screen.app.screen.query_one(VerticalScroll).scroll_end(animate=False)
        await screen.until(lambda: "Quit. A live run can keep" in " ".join(screen.words.split()), "what is below")
        await screen.press("escape")
        assert not isinstance(screen.app.screen, HelpScreen)


async def test_help_names_each_action_and_its_key_in_dialogs_too(tmp_path: Path) -> None:
    for _ in range(2):
        finished(Home(tmp_path), steps=4)
    async with opened(tmp_path) as screen:
        await screen.tab("adapter")
        await screen.press("f1")
        words = " ".join(screen.words.split())
        assert "F Make it fit. Apply the cheapest change" in words or "V Memory. Check the fit" in words
        assert "W What fits. List the catalog models" in words
        await screen.press("f1")
        assert not isinstance(screen.app.screen, HelpScreen)
        await history(screen, 2)
        await screen.press("space", "space", "o")
        await screen.sees("held-out loss over steps")
        await screen.press("f1")
        await screen.sees("Help: Compare")
        words = " ".join(screen.words.split())
        assert "x Axis. Switch the axis" in words
        assert "l Losses." in words
        await screen.press("escape")
        await screen.sees("results")


@pytest.mark.parametrize("width", [60, 80, 100, 120])
async def test_the_footer_keeps_help_and_says_that_there_is_more(tmp_path: Path, width: int) -> None:
    async with opened(tmp_path, size=(width, 24)) as screen:
        for tab in screen.app.tabs:
            await screen.tab(tab.id)
            await screen.sees("F1 Help")
            last = screen.words.splitlines()[-1]
            names = {one.binding.description for one in screen.app.screen.active_bindings.values() if one.binding.show}
            missing = [name for name in names if name not in last and name != "palette"]
            assert ("…" in last) == bool(missing), (tab.id, last, missing)
            assert "^p palette" in last
        await screen.pilot.resize_terminal(120, 24)
        await screen.tab("models")
        await screen.until(lambda: "…" not in screen.words.splitlines()[-1], "room for all keys")


async def test_the_palette_offers_the_keys_of_the_tab_in_front(tmp_path: Path) -> None:
    from screens.palette import WorkbenchCommands

    async with opened(tmp_path) as screen:
        names = [command.name for command in WorkbenchCommands(screen.app.screen)._commands()]
        assert "Models: Use this model" in names
        assert "Go to Chat" in names
        await screen.tab("architecture")
        names = [command.name for command in WorkbenchCommands(screen.app.screen)._commands()]
        assert "Architecture: All linear" in names
        assert "Models: Use this model" not in names


async def test_a_preset_is_taken_by_name_in_the_palette(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.press("ctrl+p", *"tinyllama-chat")
        await screen.until(lambda: "Recipe: tinyllama-chat" in screen.words, "the command")
        await screen.press("enter")
        await screen.until(
            lambda: screen.app.session.recipe.model.source == "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "the preset"
        )
        assert screen.app.session.recipe.adapter.target_modules == ["q_proj", "v_proj"]


async def test_dialog_buttons_answer_to_the_mouse(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.begin(Recipe())
        await screen.until(lambda: screen.app.session.is_live, "the run is known")
        await screen.press("ctrl+q")
        stay = list(screen.app.screen.query(Button))[2]
        await screen.pilot.click(stay)
        await screen.pilot.pause()
        assert not isinstance(screen.app.screen, ChoiceDialog)


async def test_the_meter_names_the_fullest_gpu_or_says_that_there_is_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        header = screen.app.query_one(HeaderBar)
        host = HostSample(5.0, 64 * GIB, 16 * GIB, 48 * GIB)
        header.show_memory([], host)
        await screen.pilot.pause()
        first = screen.words.splitlines()[0]
        assert "no GPU · host" in first
        assert "16/64 GiB" in first
        gpus = [
            GpuSample(0, "NVIDIA H100 80GB HBM3", 80 * GIB, 3 * GIB, 77 * GIB),
            GpuSample(1, "NVIDIA H100 80GB HBM3", 80 * GIB, 70 * GIB, 10 * GIB),
        ]
        header.show_memory(gpus, host)
        await screen.pilot.pause()
        first = screen.words.splitlines()[0]
        assert "1 H100" in first
        assert "70/80 GiB" in first


async def test_a_figure_that_trembles_is_not_painted_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        header = screen.app.query_one(HeaderBar)
        header.show_memory([], HostSample(5.0, 64 * GIB, int(15.51 * GIB), 48 * GIB))
        before = header.query_one("#memory").text  # type: ignore[attr-defined]
        header.show_memory([], HostSample(9.0, 64 * GIB, int(15.49 * GIB), 48 * GIB))
        assert header.query_one("#memory").text is before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("", "GPU"),
    ],
)
def test_names_of_gpus_are_short(name: str, shown: str) -> None:
    assert short_gpu(name) == shown


async def test_a_status_of_the_same_content_is_not_told_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        told: list[Message] = []
        screen.app._tell = told.append  # type: ignore[method-assign]
        asked = 0

        async def status(answer=screen.engine.status):  # type: ignore[no-untyped-def]
            nonlocal asked
            asked += 1
            return await answer()

        screen.engine.status = status  # type: ignore[method-assign]
        await screen.until(lambda: asked >= 2, "two polls")
        assert not [message for message in told if isinstance(message, StatusChanged)]


_IMPORTS = """
import asyncio, json, sys
from pathlib import Path
before = set(sys.modules)
from tests.screens.piloting import opened
at_start = [name for name in HEAVY if name in sys.modules]
async def main():
    async with opened(Path(sys.argv[1])) as screen:
        for tab in ("architecture", "adapter", "models"):
            await screen.tab(tab)
        print(json.dumps([name for name in HEAVY if name in sys.modules]))
asyncio.run(main())
"""


def test_no_heavy_library_is_imported_in_the_terminal(tmp_path: Path) -> None:
    heavy = [
        "torch",
        "transformers",
        "peft",
        "trl",
        "bitsandbytes",
        "datasets",
        "accelerate",
        "numpy",
        "huggingface_hub",
    ]
    code = f"HEAVY = {heavy!r}\n{_IMPORTS}"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_shell_imports_neither_pydantic_nor_http_before_its_first_frame() -> None:
    code = "import sys, screens.app; print([n for n in ('pydantic', 'httpx', 'yaml', 'psutil') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_the_settings_are_for_their_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        async with opened(tmp_path) as screen:
            settings = screen.app.session.home.settings
            settings.write_text("{}")
            screen.app.set_recipe({"adapter.r": 64})
            screen.app.session.save()
            assert settings.stat().st_mode & 0o777 == 0o600
            assert json.loads(settings.read_text())["recipe"]["adapter"]["r"] == 64
    finally:
        os.umask(umask)


async def test_a_terminal_without_utf8_is_sent_ascii_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(Home(tmp_path), steps=40)
    monkeypatch.setenv("LC_ALL", "C")
    async with opened(tmp_path, size=NARROW) as screen:
        await screen.until(lambda: screen.app.session.skeleton is not None, "the module tree")
        screen.app.session.host = HostSample(1.0, 16 * GIB, 4 * GIB, 12 * GIB)
        for tab in screen.app.tabs:
            await screen.tab(tab.id)
            await screen.pilot.pause(0.5)
            assert screen.words.isascii(), [line for line in screen.words.splitlines() if not line.isascii()]
        await screen.press("enter")
        await screen.sees("recipe")
        assert screen.words.isascii()
        for keys in (("f1",), ("escape", "ctrl+p")):
            await screen.press(*keys)
            await screen.pilot.pause(0.2)
            assert screen.words.isascii()


def test_replaced_characters_take_as_many_cells() -> None:
    for text, ascii_text in (
        ("4 × 4 ≈ …", "4 x 4 ~ ~"),
        ("╭─╮│┤▕██▏", "+-+|+####"),
        ("naïve", "naive"),
        ("日本 £", "???? ?"),
    ):
        assert in_ascii(text) == ascii_text
        assert cell_len(text) == len(ascii_text)
