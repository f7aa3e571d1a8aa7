"""The checklist of a start: a view over the journal, the same in each terminal that opens."""

from pathlib import Path

from screens.train.checklist import checklist
from screens.widgets.glyphs import ASCII, UNICODE
from tests.screens.piloting import NARROW, opened
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.runs.events import Phase
from workbench.runs.startup import Startup
from workbench.storage.paths import Home


def _started(*phases: tuple[float, str, float | None]) -> Startup:
    startup = Startup()
    for time, phase, fraction in phases:
        startup.add(Phase(time=time, phase=phase, fraction=fraction))
    return startup


def test_stages_are_added_up_and_those_to_come_are_named() -> None:
    startup = _started((10, "downloading", 0.5), (20, "loading", None), (25, "loading", 1.0), (32, "tokenizing", 0.61))
    words = checklist(startup.stages(evaluates=True), is_over=False, glyphs=UNICODE).plain
    assert words.splitlines() == [
        "✓ downloading  10 s",
        "✓ loading  12 s",
        "▸ tokenizing  61 %",
        "  preparing",
        "  base evaluation",
        "  training",
    ]
    assert checklist(startup.stages(evaluates=True), is_over=False, glyphs=ASCII).plain.isascii()
    assert "✗ tokenizing" in checklist(startup.stages(evaluates=False), is_over=True, glyphs=UNICODE).plain
    # The trainer is imported after the records are ready: that is no second loading of the base.
    for time, phase in ((40, "loading"), (43, "preparing"), (45, "evaluating"), (50, "training")):
        startup.add(Phase(time=time, phase=phase))
    found = [(stage.name, stage.state, stage.seconds) for stage in startup.stages(evaluates=True)]
    assert found == [
        ("downloading", "done", 10),
        ("loading", "done", 12),
        ("tokenizing", "done", 8),
        ("preparing", "done", 5),
        ("base evaluation", "done", 5),
        ("training", "running", 0),
    ]


def test_what_a_run_passes_over_is_not_to_come() -> None:
    startup = _started((1, "loading", None), (2, "tokenizing", None), (3, "preparing", None), (4, "training", 0.5))
    assert [stage.name for stage in startup.stages(evaluates=True)] == [
        "loading",
        "tokenizing",
        "preparing",
        "training",
    ]


async def test_it_survives_the_terminal_and_ends_with_the_first_step(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe())
    engine.phase("loading", 1.0)
    engine.phase("tokenizing", 0.61)
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await screen.tab("train")
        await screen.sees("✓ loading")
        await screen.sees("▸ tokenizing  61 %")
        # Another terminal, opened later.
        async with opened(tmp_path, size=NARROW, engine=engine) as later:
            await later.tab("train")
            await later.sees("✓ loading")
            await later.sees("▸ tokenizing  61 %")
            await later.sees("base evaluation")
        engine.phase("training", 0.0, max_steps=100)
        await screen.sees("▸ training  0 %")
        engine.step(1, 2.0)
        await screen.until(lambda: "✓ loading" not in screen.words, "the curve has its place")
        engine.finish("stopped", step=1)
        engine.goes_on(0)
        engine.phase("loading", 0.5)
        await screen.sees("▸ loading  50 %")
        engine.fail("The disk is full.", "Free some space.")
        await screen.sees("✗ loading")
