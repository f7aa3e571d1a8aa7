"""The queue in the app: lined up from Train, sorted, held, swept; and what is said of it elsewhere."""

from pathlib import Path

from textual.widgets import Input, OptionList

from screens.queue.dialog import QueueScreen, differing
from screens.shell.run_bar import waiting_words
from tests.screens.piloting import NARROW, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.machine.host import HostSample
from workbench.models.catalog import catalog_skeleton
from workbench.planning.queue import Queue, QueueRequest, QueueState, RunRequest
from workbench.recipe.schema import Recipe
from workbench.recipe.sweep import sweep
from workbench.recipe.text import edit
from workbench.storage.paths import Home

GIB = 2**30


def fill(home: Home, *names: str, hold: bool = False) -> None:
    recipes = [edit(Recipe(), {"output.name": name, "adapter.r": 8 * 2**n}) for n, name in enumerate(names)]
    Queue(home).apply(QueueRequest(action="add", runs=[RunRequest(recipe=recipe.as_dict()) for recipe in recipes]))
    if hold:
        Queue(home).apply(QueueRequest(action="hold"))


def waiting(home: Home) -> list[str]:
    return [entry.name for entry in Queue(home).read().waiting]


def live(root: Path) -> ScriptedEngine:
    engine = ScriptedEngine(Home(root))
    engine.begin(edit(Recipe(), {"output.name": "now"}))
    engine.phase("training", 0.0, max_steps=100)
    engine.step(12, 2.7)
    return engine


async def queue_screen(screen: Opened) -> QueueScreen:
    await screen.tab("train")
    await screen.press("q")
    await screen.until(lambda: isinstance(screen.app.screen, QueueScreen), "the queue")
    found = screen.app.screen
    assert isinstance(found, QueueScreen)
    return found


async def test_while_a_run_is_live_enter_lines_the_recipe_in_hand_up(tmp_path: Path) -> None:
    engine = live(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        await screen.tab("train")
        await screen.until(lambda: "12/100" in screen.words, "the run")
        screen.app.set_recipe({"output.name": "later", "adapter.r": 32})
        await screen.press("enter")
        await screen.sees("the current recipe (r 32)")
        await screen.press("y")
        await screen.until(lambda: waiting(engine.home) == ["later"], "it waits")
        assert Queue(engine.home).read().ahead == str(engine.run and engine.run.path)
        await screen.sees("1 queued")
        assert "train" not in engine.asked
        await screen.press("ctrl+q")
        await screen.sees("The queue keeps running too (1 queued).")


async def test_it_is_sorted_emptied_and_held_by_keys(tmp_path: Path) -> None:
    engine = live(tmp_path)
    fill(engine.home, "one", "two", "three")
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await queue_screen(screen)
        await screen.sees("now-01  training")
        await screen.sees("r 8 → 16")
        await screen.press("d")
        await screen.until(lambda: waiting(engine.home) == ["two", "one", "three"], "one place down")
        await screen.until(lambda: screen.app.screen.query_one(OptionList).highlighted == 1, "it stays selected")
        await screen.press("down", "u")
        await screen.until(lambda: waiting(engine.home) == ["two", "three", "one"], "one place up")
        await screen.press("x")
        await screen.until(lambda: waiting(engine.home) == ["two", "one"], "taken out")
        await screen.press("h")
        await screen.sees("The queue is on hold. Press g to resume it.")
        await screen.press("g")
        await screen.until(lambda: not Queue(engine.home).read().held, "it goes on")
        await screen.press("C")
        await screen.sees("Removes 2 queued runs.")
        await screen.press("y")
        await screen.until(lambda: waiting(engine.home) == [], "cleared")
        await screen.press("escape")
        assert not isinstance(screen.app.screen, QueueScreen)


async def test_an_entry_is_taken_in_hand_changed_and_put_back(tmp_path: Path) -> None:
    engine = live(tmp_path)
    fill(engine.home, "one", "two")
    async with opened(tmp_path, engine=engine) as screen:
        await queue_screen(screen)
        await screen.press("down", "t")
        await screen.until(lambda: screen.app.session.recipe.output.name == "two", "loaded")
        screen.app.set_recipe({"output.name": "other", "adapter.r": 4})
        await screen.press("r")
        await screen.until(lambda: waiting(engine.home) == ["one", "other"], "in its place")
        assert Queue(engine.home).read().waiting[1].recipe["adapter"]["r"] == 4


async def test_a_sweep_is_shown_before_it_is_lined_up(tmp_path: Path) -> None:
    engine = live(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        screen.app.session.skeleton = catalog_skeleton(screen.app.session.recipe.model.source)
        screen.app.session.host = HostSample(0.1, 64 * GIB, 16 * GIB, 48 * GIB)
        await queue_screen(screen)
        await screen.press("w")
        await screen.sees("4 runs")
        await screen.sees("run-r64")
        await screen.until(lambda: screen.words.count("GiB, fits") == 4, "what each needs")
        field = screen.app.screen.query_one(Input)
        field.value = "adapter.r=0"
        await screen.sees("adapter.r: got 0")
        await screen.press("enter")
        assert waiting(engine.home) == []
        field.value = "adapter.r=8,16; training.learning_rate=1e-4,2e-4"
        await screen.sees("run-r16-lr0.0002")
        await screen.press("enter")
        names = [
            v.recipe.output.name
            for v in sweep(Recipe(), {"adapter.r": [8, 16], "training.learning_rate": [1e-4, 2e-4]})
        ]
        await screen.until(lambda: waiting(engine.home) == names, "all four")


async def test_runs_that_do_not_fit_are_told_before_they_are_lined_up(tmp_path: Path) -> None:
    engine = live(tmp_path)
    tree = catalog_skeleton(Recipe().model.source)
    engine.sources.skeleton = tree
    async with opened(tmp_path, engine=engine) as screen:
        screen.app.session.skeleton = tree
        screen.app.session.host = HostSample(0.1, 8 * GIB, 5 * GIB, 3 * GIB)
        await queue_screen(screen)
        await screen.press("w")
        await screen.sees("4 runs")
        screen.app.screen.query_one(Input).value = "data.max_length=128,32768"
        await screen.sees("does not fit")
        await screen.press("enter")
        await screen.sees("1 of 2 runs do not fit")
        await screen.press("f")
        await screen.until(lambda: waiting(engine.home) == ["run-length128"], "the one that does")


async def test_why_it_is_held_is_said_on_train_and_in_the_queue(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    fill(engine.home, "one")
    (engine.home.runs / "gone-01").mkdir(parents=True)
    run = str(engine.home.runs / "gone-01")
    Queue(engine.home).change(lambda line: line.run_interrupted(run, "gone-01 was interrupted in step 7."))
    async with opened(tmp_path, engine=engine) as screen:
        await screen.tab("train")
        await screen.sees("1 queued (on hold). Press q to show the queue.")
        await queue_screen(screen)
        await screen.sees("gone-01 was interrupted in step 7.")
        await screen.sees("Press g to resume it, or resume gone-01 in Runs.")


async def test_a_stop_can_hold_the_queue(tmp_path: Path) -> None:
    engine = live(tmp_path)
    fill(engine.home, "one")
    async with opened(tmp_path, engine=engine) as screen:
        await screen.tab("train")
        await screen.sees("1 queued")
        await screen.press("s")
        await screen.sees("The next queued run")
        await screen.press("h")
        await screen.until(lambda: engine.asked[-2:] == ["queue hold", "stop"], "held, then stopped")


async def test_the_palette_has_it_on_every_tab_and_without_an_engine(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path), running=False)
    async with opened(tmp_path, engine=engine) as screen:
        await screen.tab("models")
        await screen.press("ctrl+p", *"queue")
        await screen.sees("Queued runs: add, reorder, hold")
        await screen.press("enter")
        await screen.sees("The queue is empty.")
        assert engine.asked == []


async def test_names_from_a_file_are_only_text(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    wicked = "[red]x[/]\x1b[31m"
    recipe = {"output": {"name": wicked}, "model": {"source": wicked}, "adapter": {"r": wicked}}
    Queue(engine.home).apply(QueueRequest(action="add", runs=[RunRequest(recipe=recipe)]))
    Queue(engine.home).apply(QueueRequest(action="hold"))
    async with opened(tmp_path, engine=engine) as screen:
        await queue_screen(screen)
        await screen.sees("[red]x[/]")
        assert "\x1b" not in screen.words


async def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path), running=False)
    engine.home.root.mkdir(exist_ok=True)
    engine.home.queue.write_text("{")
    async with opened(tmp_path, engine=engine) as screen:
        await queue_screen(screen)
        await screen.sees("its format is not valid. Fix the file")


def test_words() -> None:
    assert [waiting_words(count, held) for count, held in ((0, "x"), (1, ""), (3, "on request"))] == [
        "",
        "1 queued",
        "3 queued (on hold)",
    ]
    assert differing(None, {}) == ""
    line = QueueState().after_request(
        QueueRequest(action="add", runs=[RunRequest(recipe={"a": {"b": 1}}), RunRequest(recipe={"a": {"b": 2}})])
    )
    assert [differing(before, entry.recipe) for entry, before in line.with_previous] == ["", "b 1 → 2"]
