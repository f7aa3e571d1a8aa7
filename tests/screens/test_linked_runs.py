"""A run whose folder is reached by two paths: it is one run, and its view is built once."""

from pathlib import Path

from screens.messages import StatusChanged
from screens.train.pane import TrainPane
from tests.screens.piloting import opened
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home


async def test_a_live_run_behind_a_link_is_shown_by_one_view(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    engine = ScriptedEngine(home)
    run = engine.begin(edit(Recipe(), {"output.dir": str(tmp_path / "link")}))
    engine.step(1, 2.0)
    async with opened(home.root, engine=engine) as screen:
        pane = await screen.tab("train")
        assert isinstance(pane, TrainPane)
        await screen.until(
            lambda: screen.app.session.summary and screen.app.session.summary.step == 1, "the first step"
        )
        await screen.until(lambda: pane.shown_run is screen.app.session.live, "its view")
        view, status = pane.shown_run, screen.app.session.status
        assert status is not None
        # As the engine, the history and the user name it.
        for folder in (run.path, run.path.resolve(), home.runs / run.id):
            pane.post_message(StatusChanged(status.model_copy(update={"run_folder": str(folder)})))
            pane._follow(RunFolder(folder))
            await screen.pilot.pause()
            assert pane.shown_run is view
        engine.step(2, 1.5)
        await screen.until(lambda: view is not None and view.replay.summary.step == 2, "the second step")
        assert pane.shown_run is view
