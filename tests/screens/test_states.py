"""What the screen says a run is doing is what it is doing."""

from pathlib import Path

from screens.shell.header import HeaderBar
from screens.shell.phase_bar import PhaseBar
from screens.shell.run_bar import RunBar
from tests.screens.piloting import NARROW, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.engine.client.protocol import ControlRequest
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home


async def everywhere(screen: Opened, words: str, besides: str) -> None:
    """Wait until a state is named in the header, on Train and in the run bar, and another one nowhere."""

    def lines() -> list[str]:
        places = (screen.app.query_one(kind).region.y for kind in (HeaderBar, PhaseBar, RunBar))
        return [screen.words.splitlines()[y] for y in places]

    def is_named() -> bool:
        return all(words in line for line in lines()) and not any(besides in line for line in lines())

    await screen.until(is_named, f"{words} in each and {besides} in none of {lines()}")


async def test_each_state_of_a_run_is_named_in_all_places(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe())
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await screen.tab("train")
        for phase, detail in (
            ("loading", "importing libraries"),
            ("tokenizing", "1,024 records"),
            ("base evaluation", "batch 3 of 12"),
        ):
            engine.phase(phase, 0.25, detail, eta_seconds=75.0)
            await everywhere(screen, phase, "training")
            await screen.sees(detail)
            await screen.sees("ETA 01:15")
        engine.phase("training", 0.0, max_steps=100)
        engine.step(10, 2.0)
        await screen.sees("step 10/100")


async def test_a_paused_run_that_samples_is_not_called_paused(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe())
    async with opened(tmp_path, engine=engine) as screen:
        await screen.tab("train")
        engine.phase("training", 0.0, max_steps=100)
        engine.step(10, 2.0)
        await engine.control(ControlRequest(action="pause"))
        engine.obey(10)
        await everywhere(screen, "paused", "ETA")
        engine.phase("sampling", 0.33, "reply 2 of 3")
        await everywhere(screen, "sampling", "paused at")
        await screen.sees("reply 2 of 3")
        engine.phase("training", 0.1, max_steps=100)
        await everywhere(screen, "paused", "sampling")
