"""Train: what the keys do, and that all of it follows from engine and journal."""

from pathlib import Path

from screens.dialogs import ChoiceDialog, ErrorDialog
from screens.train import TrainPane
from screens.widgets.gpu_panel import GpuPanel
from screens.widgets.log_pane import LogPane, clean_line
from screens.widgets.loss_chart import LossChart
from screens.widgets.problem import Problem
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine, some_facts
from workbench.errors import WorkbenchError
from workbench.gpu import GpuProcess, GpuSample, HostSample
from workbench.paths import Home
from workbench.recipe import Recipe

GIB = 2**30


async def train_pane(screen: Opened) -> TrainPane:
    pane = await screen.tab("train")
    assert isinstance(pane, TrainPane)
    return pane


def offered(screen: Opened) -> dict[str, bool]:
    """Descriptions in the footer of the pane's own keys, and whether they can be used."""
    return {
        binding.description: enabled
        for node, binding, enabled, _ in screen.app.screen.active_bindings.values()
        if isinstance(node, TrainPane)
    }


async def test_with_nothing_to_show_it_says_what_enter_would_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await train_pane(screen)
        await screen.sees("Nothing is training. Press Enter to fine-tune")
        await screen.sees("4 × 4 = 16 records a step")
        screen.app.set_recipe({"training.per_device_train_batch_size": 2})
        await screen.until(lambda: "2 × 4 = 8 records a step" in screen.words, "the plan follows the recipe")
        assert offered(screen) == {"Start": True}


async def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await train_pane(screen)
        await screen.press("enter")
        engine = screen.engine
        await screen.until(lambda: engine.asked == ["ensure", "train"], "the engine is asked")
        engine.phase("loading", 0.42, "model.safetensors")
        await screen.until(lambda: "loading" in screen.words and "42 %" in screen.words, "the phase in view")
        await screen.sees("The curve begins with the first step.")
        await screen.until(lambda: offered(screen) == {"Stop, save": True, "Discard": True, "Log": True}, "its keys")
        engine.phase("training", 0.0, max_steps=100)
        engine.step(1, 2.5)
        engine.step(50, 1.25)
        await screen.until(lambda: "step 50/100" in screen.words, "the step in view")
        await screen.until(lambda: "train 1.25" in screen.words, "the loss in view")
        for words in ("grad norm 0.83", "tok/s 3.1k", "epoch 0.50", "ETA 00:25"):
            await screen.sees(words)
        engine.evaluate(0, 3.0, 20.1)
        engine.evaluate(100, 1.0, 2.72)
        engine.step(100, 1.0)
        engine.finish(step=100)
        await screen.until(lambda: "finished" in screen.words, "the end in view")
        await screen.sees("perplexity 20.1 → 2.7")
        await screen.until(lambda: offered(screen) == {"Start": True, "Log": True}, "another one can be started")


async def test_a_run_that_loses_many_replies_is_started_only_if_that_is_wanted(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.answers = [some_facts([], records=80, lost_reply=20)]
        await train_pane(screen)
        await screen.press("enter")
        await screen.until(lambda: "20 records of 100 (20%) lose the whole reply" in screen.words, "the question")
        await screen.press("enter")
        await screen.until(lambda: offered(screen) == {"Start": True}, "back without a run")
        assert "train" not in screen.engine.asked
        await screen.press("enter")
        await screen.until(lambda: "lose the whole reply" in screen.words, "the question again")
        await screen.press("s")
        await screen.until(lambda: "train" in screen.engine.asked, "the run")


async def test_a_run_that_loses_few_replies_starts_unasked(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.answers = [some_facts([], records=95, lost_reply=5)]
        await train_pane(screen)
        await screen.press("enter")
        await screen.until(lambda: screen.engine.asked == ["ensure", "train"], "the run")


async def test_start_is_greyed_while_the_engine_is_busy_otherwise(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.state = "replying"
    async with opened(tmp_path, engine=engine) as screen:
        await train_pane(screen)
        assert offered(screen) == {"Start": False}
        await screen.press("enter")
        assert engine.asked == []
        engine.state = "idle"
        await screen.until(lambda: offered(screen) == {"Start": True}, "it is idle again")


async def test_a_refusal_is_shown_and_the_app_lives_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await train_pane(screen)
        screen.engine.refusal = WorkbenchError("The disk is full.", "Free some space.", kind="disk_full")
        await screen.press("enter")
        await screen.until(lambda: isinstance(screen.app.screen, ErrorDialog), "the error")
        await screen.sees("Free some space.")
        screen.engine.refusal = None
        await screen.press("escape", "enter")
        await screen.until(lambda: "train" in screen.engine.asked, "a second try")


async def test_stopping_asks_first_and_saves_or_discards(tmp_path: Path) -> None:
    for key, answer, asked in (("s", "s", "stop"), ("S", "d", "discard"), ("s", "k", None)):
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
            await screen.until(lambda screen=screen: offered(screen)["Stop, save"] is False, "once is enough")


async def test_a_terminal_that_comes_back_shows_the_run_from_its_first_step(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=5000)
    engine.phase("training", 0.0, max_steps=5000)
    for step in range(1, 3001):
        engine.step(step, 3.0 - step / 2000)
    async with opened(tmp_path, engine=engine) as screen:
        pane = await train_pane(screen)
        await screen.until(lambda: "step 3000/5000" in screen.words, "the newest step")
        await screen.until(lambda: pane._story is not None and pane._story.train.count == 3000, "all of its steps")
        await screen.tab("adapter")
        for step in range(3001, 3101):
            engine.step(step, 1.5)
        await train_pane(screen)
        await screen.until(lambda: pane._story is not None and pane._story.train.count == 3100, "what it missed")


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
        await screen.sees("the checkpoint of step 5 is kept")
        await screen.until(lambda: offered(screen).get("Start") is True, "another one can be started")


async def test_the_log_follows_its_file_as_plain_text(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        pane = await train_pane(screen)
        await screen.press("enter")
        await screen.until(lambda: screen.engine.run is not None, "a run")
        assert screen.engine.run is not None
        log = screen.engine.run.log
        log.write_bytes(b"\x1b[31mloading\x1b[0m\n 10%|#\r 50%|##\r100%|####\n[red]not red[/red] \x1b]52;c;aGk=\x07\n")
        await screen.until(lambda: pane._story is not None, "its story")
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
