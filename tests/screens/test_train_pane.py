"""Train: what the keys do, and that all of it follows from engine and journal."""

from pathlib import Path

import pytest
from textual.widgets import Input

from screens.charts.loss_chart import LossChart
from screens.dialogs.questions import ChoiceDialog, ErrorDialog
from screens.shell.phase_bar import PhaseBar
from screens.shell.run_bar import RunBar
from screens.train.gpu_panel import GpuPanel
from screens.train.pane import TrainPane
from screens.train.problem import Problem
from screens.train.start_card import start_card
from screens.train.start_check import Findings
from screens.widgets.log_pane import LogPane, clean_line
from tests.journals import read_events
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine, some_facts
from workbench.errors import WorkbenchError
from workbench.machine.gpu import GpuProcess, GpuSample
from workbench.machine.host import HostSample
from workbench.models.catalog import catalog_skeleton
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.summary import RunSummary
from workbench.storage.paths import Home

GIB = 2**30

# What can be asked of a live run, as the footer, the menu, the palette and the help name it.
STEERING = dict.fromkeys(
    (
        "Pause", "Stop", "Checkpoint", "Evaluate", "Sample", "More", "Learning rate", "Max steps", "Discard",
        "Force-kill engine", "Queue next", "Queue", "GPUs",
    ),
    True,
)  # fmt: skip

IDLE = {"Start": True, "Name": True, "Queue": True, "GPUs": True}


async def train_pane(screen: Opened) -> TrainPane:
    pane = await screen.tab("train")
    assert isinstance(pane, TrainPane)
    return pane


def offered(screen: Opened) -> dict[str, bool]:
    """Descriptions of the pane's own keys but those of the chart, and whether they can be used."""
    return {
        binding.description: enabled
        for node, binding, enabled, _ in screen.app.screen.active_bindings.values()
        if isinstance(node, TrainPane) and not (binding.id or "").startswith("chart.")
    }


async def test_with_nothing_to_show_it_says_what_enter_would_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await train_pane(screen)
        await screen.sees("Ready to train. Enter starts.")
        await screen.sees("4 × 4 = 16 records per step")
        screen.app.set_recipe({"training.per_device_train_batch_size": 2})
        await screen.until(lambda: "2 × 4 = 8 records per step" in screen.words, "the plan follows the recipe")
        assert offered(screen) == IDLE


async def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await train_pane(screen)
        await screen.press("enter")
        engine = screen.engine
        await screen.until(lambda: engine.asked == ["ensure", "train"], "the engine is asked")
        engine.phase("loading", 0.42, "model.safetensors")
        await screen.until(lambda: "loading" in screen.words and "42 %" in screen.words, "the phase in view")
        await screen.sees("Loss appears after step 1.")
        await screen.until(lambda: offered(screen) == {**STEERING, "Log": True}, "its keys")
        engine.phase("training", 0.0, max_steps=100)
        engine.step(1, 2.5)
        engine.step(50, 1.25)
        await screen.until(lambda: "step 50/100" in screen.words, "the step in view")
        await screen.until(lambda: "train 1.25" in screen.words, "the loss in view")
        for words in ("grad norm 0.83", "tok/s 3.1k", "epoch 0.50", "ETA 00:25"):
            await screen.sees(words)
        engine.evaluated(0, 3.0, 20.1)
        engine.evaluated(100, 1.0, 2.72)
        engine.step(100, 1.0)
        engine.finish(step=100)
        await screen.until(lambda: "finished" in screen.words, "the end in view")
        await screen.sees("perplexity 20.1 → 2.7")
        await screen.until(
            lambda: offered(screen) == {**IDLE, "Log": True, "Next run": True}, "another one can be started"
        )


async def test_both_bars_tell_the_same_phase(tmp_path: Path) -> None:
    """The journal's, whatever the engine was last heard to be at."""
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe())

    def phases(screen: Opened) -> tuple[str, str]:
        bars = screen.app.query_one(PhaseBar), screen.app.query_one(RunBar)
        lines = screen.words.splitlines()
        return lines[bars[0].region.y], lines[bars[1].region.y]

    async def both(screen: Opened, words: str, besides: str) -> None:
        await screen.until(lambda: all(words in line for line in phases(screen)), f"{words} in both")
        assert not any(besides in line for line in phases(screen))

    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await train_pane(screen)
        engine.reports(Progress(phase="loading", detail="starting 2 processes"))
        await both(screen, "loading", "evaluating")
        engine.phase("evaluating", 0.96)
        await both(screen, "evaluating", "training")
        engine.phase("training", 0.0, max_steps=100)
        engine.reports(Progress(phase="evaluating", fraction=0.98))
        await both(screen, "training", "evaluating")
        engine.step(10, 2.0)
        await both(screen, "step 10/100", "evaluating")
        engine.phase("evaluating", 0.5)
        await both(screen, "evaluating", "training")
        await both(screen, "step 10/100", "ETA")
        engine.phase("training", 0.1, max_steps=100)
        await both(screen, "ETA", "evaluating")


async def test_a_run_that_loses_many_replies_is_started_only_if_that_is_wanted(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.sources.answers = [some_facts([], records=80, lost_reply=20)]
        await train_pane(screen)
        await screen.press("enter")
        await screen.until(lambda: "20 records of 100 (20%) lose the whole response" in screen.words, "the question")
        await screen.press("enter")
        await screen.until(lambda: offered(screen) == IDLE, "back without a run")
        assert "train" not in screen.engine.asked
        await screen.press("enter")
        await screen.until(lambda: "lose the whole response" in screen.words, "the question again")
        await screen.press("y")
        await screen.until(lambda: "train" in screen.engine.asked, "the run")


async def test_a_run_that_loses_few_replies_starts_unasked(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.sources.answers = [some_facts([], records=95, lost_reply=5)]
        await train_pane(screen)
        await screen.press("enter")
        await screen.until(lambda: screen.engine.asked == ["ensure", "train"], "the run")


async def test_start_is_greyed_while_the_engine_is_busy_otherwise(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.replies_elsewhere()
    async with opened(tmp_path, engine=engine) as screen:
        await train_pane(screen)
        assert offered(screen) == {**IDLE, "Start": False}
        await screen.press("enter")
        assert engine.asked == []
        engine.end()
        await screen.until(lambda: offered(screen) == IDLE, "it is idle again")


async def test_a_refusal_is_shown_and_the_app_lives_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await train_pane(screen)
        screen.engine.backend.trouble = WorkbenchError("The disk is full.", "Free some space.", kind="disk_full")
        await screen.press("enter")
        await screen.until(lambda: isinstance(screen.app.screen, ErrorDialog), "the error")
        await screen.sees("Free some space.")
        screen.engine.backend.trouble = None
        await screen.press("escape", "enter")
        await screen.until(lambda: "train" in screen.engine.asked, "a second try")


async def test_stopping_asks_first_and_saves_or_discards(tmp_path: Path) -> None:
    for key, answer, asked in (("s", "y", "stop"), ("X", "y", "discard"), ("s", "n", None)):
        root = tmp_path / f"{key}{answer}"
        engine = ScriptedEngine(Home(root))
        engine.begin(Recipe())
        async with opened(root, engine=engine) as screen:
            await train_pane(screen)
            await screen.press(key)
            await screen.until(lambda screen=screen: isinstance(screen.app.screen, ChoiceDialog), "a question")
            await screen.press(answer)
            if asked is None:
                assert engine.asked == []
                continue
            await screen.until(lambda engine=engine: bool(engine.asked), "the engine is asked")
            assert engine.asked == [asked]
            await screen.until(lambda screen=screen: "stopping" in screen.words, "it stops")
            await screen.until(lambda screen=screen: offered(screen)["Stop"] is False, "once is enough")
            assert offered(screen)["Force-kill engine"] is True


async def test_a_terminal_that_comes_back_shows_the_run_from_its_first_step(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=5000)
    engine.phase("training", 0.0, max_steps=5000)
    for step in range(1, 3001):
        engine.step(step, 3.0 - step / 2000)
    async with opened(tmp_path, engine=engine) as screen:
        pane = await train_pane(screen)
        await screen.until(lambda: "step 3000/5000" in screen.words, "the newest step")
        await screen.until(lambda: pane.shown_run and pane.shown_run.replay.curves.train.count == 3000, "all steps")
        await screen.tab("adapter")
        for step in range(3001, 3101):
            engine.step(step, 1.5)
        await train_pane(screen)
        await screen.until(lambda: pane.shown_run and pane.shown_run.replay.curves.train.count == 3100, "the rest")


async def test_a_run_that_failed_says_why_and_can_be_copied(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        pane = await train_pane(screen)
        await screen.press("enter")
        await screen.until(lambda: screen.engine.run is not None, "a run")
        screen.engine.fail(
            "CUDA ran out of memory.", "Halve the micro-batch.", "Traceback [red]\n" + "  line\n" * 60, kind="oom"
        )
        await screen.until(lambda: "CUDA ran out of memory." in screen.words, "the error in view")
        await screen.sees("Halve the micro-batch.")
        problem = pane.query_one(Problem)
        assert problem.max_scroll_y > 0
        await screen.press("y")
        assert screen.app.clipboard.startswith("CUDA ran out of memory.\nHalve the micro-batch.\nTraceback [red]")


async def test_a_run_whose_engine_was_killed_is_called_interrupted(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe())
    async with opened(tmp_path, engine=engine) as screen:
        await train_pane(screen)
        engine.write("run_started", model="m", pid=0, process_started=0.0)
        engine.step(7, 2.0)
        engine.write("checkpoint", step=5, path="checkpoint-5")
        await screen.until(lambda: "step 7/100" in screen.words, "it is live")
        engine.running = False
        await screen.until(lambda: "interrupted" in screen.words, "its engine is gone")
        await screen.sees("at step 7")
        await screen.sees("g resume from step 5")
        await screen.until(lambda: offered(screen).get("Start") is True, "another one can be started")


async def test_the_log_follows_its_file_as_plain_text(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        pane = await train_pane(screen)
        await screen.press("enter")
        await screen.until(lambda: screen.engine.run is not None, "a run")
        assert screen.engine.run is not None
        log = screen.engine.run.log
        log.write_bytes(b"\x1b[31mloading\x1b[0m\n 10%|#\r 50%|##\r100%|####\n[red]not red[/red] \x1b]52;c;aGk=\x07\n")
        await screen.until(lambda: pane.shown_run is not None, "its story")
        await screen.press("l")
        await screen.until(lambda: "[red]not red[/red]" in screen.words, "the log")
        shown = pane.query_one(LogPane)
        assert list(shown.lines)[:3] == ["loading", "100%|####", "[red]not red[/red] "]
        with log.open("ab") as file:
            file.write(b"half a li")
            file.flush()
            shown.read_on()
            file.write(b"ne\n")
        shown.read_on()
        assert list(shown.lines)[3] == "half a line"
        with log.open("ab") as file:
            file.write(b"".join(b"line %d\n" % number for number in range(100_000)))
        shown.read_on()
        assert len(shown.lines) <= 1000
        assert "line 99999" in list(shown.lines)
        await screen.press("l")
        assert not shown.display or not shown.region


def test_a_line_of_a_log_is_what_a_terminal_would_show_last() -> None:
    assert clean_line(b"a\rb\r\n".rstrip(b"\n")) == "b"
    assert clean_line(b"\x1b]0;title\x1b\\x\x1b[2Jy\xc2\x9b31mz") == "xy�31mz"
    assert "\x1b" not in clean_line(b"\x1b\x1b[2J\x1b]52;c;x")


async def test_hardware_of_a_gpu_and_of_none(tmp_path: Path) -> None:
    host = HostSample(37.0, 64 * GIB, 12 * GIB, 52 * GIB, process_bytes=2 * GIB)
    gpu = GpuSample(
        0, "NVIDIA H200", 139 * GIB, 31 * GIB, 108 * GIB, 96.0, 61.0, 612.0, processes=(GpuProcess(7, "else", 3 * GIB),)
    )
    async with opened(tmp_path, size=WIDE) as screen:
        pane = await train_pane(screen)
        panel = pane.query_one(GpuPanel)
        panel.sample((), host)
        panel.run_used(3 * GIB, None)
        await screen.until(lambda: "12.0/64 GiB" in screen.words, "host memory")
        await screen.sees("CPU  ")
        await screen.sees("engine now 2.00  peak 3.00")
        await screen.until(lambda: "no GPU" in screen.words.replace("No", "no"), "as it should stand")
        panel.sample((gpu,), host, engine=1)
        panel.run_used(30 * GIB, 29 * GIB)
        await screen.until(lambda: "31.0/139 GiB" in screen.words, "VRAM")
        for words in ("peak 30.0  predicted 29.0", " 96 %", "61 °C", "612 W", "others 3.00 GiB"):
            await screen.sees(words)


def test_a_screen_at_rest_repaints_the_hardware_at_every_fifth_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    panel, repaints = GpuPanel(), []
    monkeypatch.setattr(panel, "changed", lambda: repaints.append(1))
    counts = []
    for _ in range(11):
        panel.sample((), None, is_live=False)
        counts.append(len(repaints))
    assert counts == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]
    panel.sample((), None, is_live=True)
    panel.sample((), None, is_live=True)
    assert len(repaints) == 5


async def test_a_query_that_nvml_refuses_is_not_available_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        pane = await train_pane(screen)
        pane.query_one(GpuPanel).sample((GpuSample(0, "Orin"),), None)
        await screen.until(lambda: "VRAM N/A" in screen.words, "what is known")
        await screen.sees("util N/A")


async def test_the_chart_is_not_drawn_while_another_tab_is_in_front(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe())
    engine.phase("training", 0.0, max_steps=100)
    async with opened(tmp_path, engine=engine) as screen:
        pane = await train_pane(screen)
        chart = pane.query_one(LossChart)
        await screen.tab("adapter")
        painted: list[int] = []
        chart.paint = lambda width, height: painted.append(1) or []  # type: ignore[assignment,method-assign]
        for step in range(1, 6):
            engine.step(step, 1.0)
        await screen.until(lambda: screen.app.session.summary and screen.app.session.summary.step == 5, "steps told")
        assert not painted


def live(root: Path, steps: int = 12, of: int = 100) -> ScriptedEngine:
    """A home whose run is under way."""
    engine = ScriptedEngine(Home(root))
    engine.begin(Recipe(), max_steps=of)
    engine.phase("training", 0.0, max_steps=of)
    for step in range(1, steps + 1):
        engine.step(step, 3.0 - step / 50)
    return engine


@pytest.mark.parametrize(
    ("keys", "asked", "told"),
    [
        ("k", "checkpoint", "step 12: checkpoint saved"),
        ("e", "evaluate", "step 12: evaluated"),
        ("x", "sample", "step 12: replies sampled"),
        ("py", "pause", "paused  at step 12/100"),
        ("pf", "pause release", "GPU memory released"),
        ("r", "learning_rate 0.001", "step 12: peak learning rate 0.001"),
        ("M", "max_steps 300", "step 12: max steps 300"),
    ],
)
@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_what_is_asked_is_shown_as_asked_and_then_as_done(
    tmp_path: Path, size: tuple[int, int], keys: str, asked: str, told: str
) -> None:
    engine = live(tmp_path)
    async with opened(tmp_path, size=size, engine=engine) as screen:
        await train_pane(screen)
        await screen.sees("step 12/100")
        await screen.press(*keys)
        if keys in ("r", "M"):
            field = screen.app.screen.query_one(Input)
            assert field.value == ("2e-4" if keys == "r" else "100")
            field.value = asked.split()[1]
            await screen.press("enter")
        await screen.until(lambda: engine.asked == [asked], "the engine is asked")
        await screen.sees("requested; applies after this step")
        engine.obey(12)
        await screen.sees(told)
        await screen.until(lambda: "requested" not in screen.words, "it is done")
        # It is as wide as the screen: nothing is cut off.
        assert f"{told}" in screen.words


async def test_a_pause_says_which_key_ends_it(tmp_path: Path) -> None:
    engine = live(tmp_path)
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await train_pane(screen)
        await screen.press("p", "enter")
        await screen.until(lambda: engine.asked == ["pause"], "the engine is asked")
        engine.obey(12)
        await screen.sees("paused  at step 12/100 · g resume · model kept in memory")
        await screen.until(lambda: offered(screen).get("Resume") is True, "it can go on")
        assert "Pause" not in offered(screen)
        await screen.press("f")
        await screen.until(lambda: engine.asked[-1] == "pause release", "its memory is asked back")
        engine.obey(12)
        await screen.sees("GPU memory released")
        await screen.until(lambda: offered(screen)["Evaluate"] is False, "nothing to evaluate with")
        assert offered(screen)["Stop"] is True
        await screen.press("g")
        await screen.until(lambda: engine.asked[-1] == "resume", "it is to go on")
        engine.obey(12)
        await screen.sees("step 12: resumed")
        await screen.until(lambda: offered(screen).get("Pause") is True, "it goes on")


async def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path) -> None:
    engine = live(tmp_path)
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await train_pane(screen)
        # A disk without room takes no line of a journal either: the engine's state tells it.
        engine.stand("The disk of /runs is full (0 MB free). Nothing is lost: free some space, and the run goes on.")
        await screen.sees("paused  at step 12/100 · g resume")
        await screen.sees("The disk of /runs is full")


@pytest.mark.parametrize(("keys", "text"), [("r", "3"), ("r", "fast"), ("M", "0"), ("M", "2.5"), ("M", "")])
async def test_a_value_that_cannot_be_is_refused(tmp_path: Path, keys: str, text: str) -> None:
    engine = live(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        await train_pane(screen)
        await screen.press(keys)
        screen.app.screen.query_one(Input).value = text
        await screen.press("enter")
        await screen.sees("Enter a number between 0 and 1" if keys == "r" else "Enter a whole number")
        assert engine.asked == []


async def test_the_menu_has_what_the_footer_has_no_room_for(tmp_path: Path) -> None:
    engine = live(tmp_path)
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await train_pane(screen)
        await screen.press("space")
        for name in set(STEERING) - {"More", "Queue next", "Queue", "GPUs"}:
            await screen.sees(name)
        await screen.pilot.click("#choice-1")
        await screen.until(lambda: engine.asked == ["checkpoint"], "clicked")
        await screen.press("space", "X")
        await screen.sees("Stop and discard?")
        await screen.press("y")
        await screen.until(lambda: engine.asked[-1] == "discard", "by its key")


async def test_everything_is_in_the_palette(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=live(tmp_path)) as screen:
        await train_pane(screen)
        await screen.press("ctrl+p", "m", "a", "x", "space", "s")
        await screen.sees("Train: Max steps")
        await screen.press("enter")
        await screen.sees("Total optimizer steps")


async def test_a_harder_stop_kills_the_engine_and_the_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.embody()
    run = engine.begin(Recipe(), max_steps=100)
    engine.phase("training", 0.0, max_steps=100)
    for step in range(1, 13):
        engine.step(step, 2.0)
    engine.write("checkpoint", step=10, path="checkpoint-10")
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        pane = await train_pane(screen)
        await screen.press("s", "y")
        await screen.sees("K force-kills the engine")
        await screen.press("K")
        await screen.sees("from its checkpoint at step")
        await screen.press("y")
        await screen.sees("interrupted  at step 12 · g resume from step 10")
        assert engine.asked == ["stop", "kill"]
        await screen.press("g")
        await screen.until(lambda: engine.asked[-1] == f"resume {run.id}", "it is resumed")
        engine.goes_on(10, "checkpoint-10")
        engine.phase("training", 0.1, max_steps=100)
        for step in range(11, 21):
            engine.step(step, 1.0)
        await screen.sees("step 20/100")
        assert pane.shown_run is not None
        assert [x for x, _ in pane.shown_run.replay.curves.train.points()] == list(range(1, 21))
        await screen.until(lambda: offered(screen).get("Pause") is True, "all controls")


async def test_a_new_app_offers_the_run_that_was_interrupted(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.embody()
    run = engine.begin(Recipe(), max_steps=100)
    engine.step(12, 2.0)
    engine.die()
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await train_pane(screen)
        await screen.sees(f"{run.id} was interrupted after step 12. Press g to resume")
        await screen.press("g")
        await screen.until(lambda: engine.asked == ["ensure", f"resume {run.id}"], "it is resumed")
        engine.goes_on(0)
        engine.step(1, 3.0)
        await screen.sees("step 1/100")


async def test_a_new_app_tells_how_the_run_ended_that_no_terminal_saw(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    run = engine.begin(Recipe(), max_steps=2)
    engine.evaluated(0, 3.0, 20.13)
    engine.step(2, 1.0)
    engine.evaluated(2, 1.0, 2.7)
    engine.finish(step=2)
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await train_pane(screen)
        await screen.sees(f"last run  {run.id} finished · perplexity 20.1 → 2.7 · details in Runs (7)")
        await screen.sees("Enter starts.")
        assert not offered(screen).get("Resume")


def test_a_run_that_goes_on_is_not_told_as_the_last() -> None:
    going = RunSummary("run-01", state="running", step=5)
    assert "run-01" not in start_card(Recipe(), Findings(), going).plain


async def test_a_run_that_cannot_be_resumed_says_why(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=100)
    engine.step(12, 2.0)
    async with opened(tmp_path, engine=engine) as screen:
        await train_pane(screen)
        await screen.sees("step 12/100")
        engine.finish("stopped", step=12)
        await screen.until(lambda: offered(screen).get("Resume") is True, "it can go on")
        engine.backend.trouble = WorkbenchError("The disk is full.", "Free some space.", kind="disk_full")
        await screen.press("g")
        await screen.until(lambda: isinstance(screen.app.screen, ErrorDialog), "the error")


@pytest.mark.parametrize("end", ["finished", "discarded"])
async def test_a_run_that_is_done_with_does_not_go_on(tmp_path: Path, end: str) -> None:
    engine = live(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        await train_pane(screen)
        await screen.sees("step 12/100")
        engine.finish(end, step=12)
        await screen.until(lambda: offered(screen).get("Start") is True, "its end")
        assert "Go on" not in offered(screen)


async def test_the_best_step_and_an_early_end_are_shown(tmp_path: Path) -> None:
    recipe = edit(Recipe(), {"training.early_stopping_patience": 2, "training.eval_steps": 4, "training.keep": "best"})
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(recipe, max_steps=100)
    engine.phase("training", 0.0, max_steps=100)
    for step in range(1, 13):
        engine.step(step, 2.0)
        if step % 4 == 0:
            engine.evaluated(step, 1.0 + step / 100, 2.7, best=step == 4)
    async with opened(tmp_path, engine=engine) as screen:
        await train_pane(screen)
        await screen.sees("best 1.04 at 4")
        await screen.sees("2 of 2 evals used")
        engine.finish("early_stopping", step=12, kept_step=4)
        await screen.sees("ended early · adapter of step 4")


async def test_replies_are_read_step_by_step(tmp_path: Path) -> None:
    engine = live(tmp_path)
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await train_pane(screen)
        assert "Replies" not in offered(screen)
        engine.sample(4, [("Who sails her?", "A sailor."), ("Why?", "[red]Because.[/red]\x1b[2J")])
        engine.sample(8, [("Who sails her?", "Aye, the mate."), ("Why?", "Aye.")])
        await screen.until(lambda: offered(screen).get("Replies") is True, "something to read")
        await screen.press("v")
        for words in ("prompt 1 of 2", "Who sails her?", "step 4", "A sailor.", "step 8", "Aye, the mate."):
            await screen.sees(words)
        engine.sample(12, [("Who sails her?", "Arr, the captain."), ("Why?", "Arr.")])
        await screen.sees("Arr, the captain.")
        await screen.press("right")
        await screen.sees("[red]Because.[/red]")
        assert "\x1b" not in screen.words
        await screen.press("escape")
        await screen.until(lambda: "prompt 2 of 2" not in screen.words, "closed")


async def test_two_terminals_see_what_either_asks_for(tmp_path: Path) -> None:
    engine = live(tmp_path, steps=300, of=1000)
    async with opened(tmp_path, engine=engine) as one, opened(tmp_path, size=NARROW, engine=engine) as other:
        for screen in (one, other):
            # By its key: what a test mounts by itself belongs to the app that was opened last.
            await screen.press("5")
            await screen.until(lambda screen=screen: isinstance(screen.app.pane_in_front, TrainPane), "Train")
            pane = screen.app.pane_in_front
            await screen.until(
                lambda pane=pane: pane.shown_run and pane.shown_run.replay.curves.train.count == 300, "the curve"
            )
        await one.press("k")
        await one.until(lambda: engine.asked == ["checkpoint"], "asked by one")
        engine.obey(300)
        await other.sees("step 300: checkpoint saved")
        await other.press("p", "y")
        await other.until(lambda: engine.asked[-1] == "pause", "asked by the other")
        engine.obey(300)
        await one.sees("paused  at step 300/1000")
        await one.press("g")
        await one.until(lambda: engine.asked[-1] == "resume", "ended by the first")
        engine.obey(300)
        await other.sees("step 300: resumed")
        assert [event["action"] for event in read_events(engine.run.journal) if event["event"] == "control"] == [
            "checkpoint",
            "pause",
        ]


async def test_a_run_that_does_not_fit_is_asked_about_and_made_to_fit_by_one_key(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path), skeleton=catalog_skeleton(Recipe().model.source))
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        app = screen.app
        app.set_recipe({"training.per_device_train_batch_size": 16, "data.max_length": 4096})
        app.session.host = HostSample(37.0, 64 * GIB, 60 * GIB, 4 * GIB)
        await train_pane(screen)
        await screen.press("enter")
        await screen.sees("It does not fit")
        await screen.is_asked("4.00 GiB free on this machine")
        await screen.sees("1  micro-batch")
        await screen.press("n")
        await screen.until(lambda: offered(screen) == {**IDLE, "Make it fit": True}, "back without a run")
        assert "train" not in engine.asked
        await screen.press("enter")
        await screen.sees("It does not fit")
        await screen.press("1")
        await screen.until(lambda: "train" in engine.asked, "the run")
        assert app.session.recipe.training.per_device_train_batch_size < 16
        assert app.session.recipe.training.effective_batch == 64


async def test_a_run_that_does_not_fit_can_be_started_all_the_same(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path), skeleton=catalog_skeleton(Recipe().model.source))
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        screen.app.session.host = HostSample(37.0, 64 * GIB, 64 * GIB, GIB // 100)
        await train_pane(screen)
        await screen.press("enter")
        await screen.is_asked("No single change makes it fit")
        await screen.press("y")
        await screen.until(lambda: "train" in engine.asked, "the run")


@pytest.mark.parametrize("ends", ["fails", "is stopped"])
async def test_a_run_that_ends_before_its_first_step_is_not_offered_to_be_resumed(tmp_path: Path, ends: str) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    run = engine.begin(Recipe())
    engine.phase("loading", 0.5, "model.safetensors")
    async with opened(tmp_path, engine=engine) as screen:
        await train_pane(screen)
        await screen.sees("loading")
        if ends == "fails":
            engine.fail("Nothing is at notes.jsonl.", "Check the path.")
            await screen.sees("failed  before the first step")
        else:
            engine.finish("stopped", step=0)
            await screen.sees("no adapter kept")
        await screen.until(lambda: offered(screen).get("Start"), "another one can be started")
        assert "Resume" not in offered(screen)
        await screen.tab("runs")
        await screen.sees(run.id)
        await screen.press("home")
        assert "g resume" not in screen.words
        bindings = screen.app.screen.active_bindings.values()
        assert "Resume" not in [binding.description for _, binding, *_ in bindings]
