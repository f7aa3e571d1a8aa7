"""What the first three screens look like, at both sizes: no clock, no hardware and no cache of this machine in them."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.widgets import glyphs
from tests.screens.piloting import NARROW, WIDE, Opened
from tests.screens.scripted import ScriptedEngine
from workbench.engine.client.protocol import DeviceFacts
from workbench.machine.gpu import GpuSample
from workbench.machine.host import HostSample
from workbench.models.catalog import catalog_skeleton
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

GIB = 2**30
SIZES = [pytest.param(WIDE, id="120x40"), pytest.param(NARROW, id="80x24")]
Before = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture(autouse=True)
def _this_machine_has_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not glyphs.unicode_terminal():
        pytest.skip("the pictures are drawn in a UTF-8 locale, and this one is none")


def app_on(home: Path) -> WorkbenchApp:
    engine = ScriptedEngine(Home(home))
    engine.backend.device = DeviceFacts(kind="cuda", name="NVIDIA H100 80GB HBM3", total_bytes=80 * GIB)
    app = WorkbenchApp(Home(home), engine)
    app.sample_hardware = False
    app.trace_steps = False
    app.session.gpus = (GpuSample(0, "NVIDIA H100 80GB HBM3", 80 * GIB, 3 * GIB, 77 * GIB),)
    app.session.host = HostSample(5.0, 64 * GIB, 16 * GIB, 48 * GIB)
    return app


def ready(tab: str, *keys: str, changes: dict[str, Any] | None = None, until: str = "") -> Before:
    """Open a tab under a recipe, press keys, and wait until some words stand there."""

    async def before(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, WorkbenchApp)
        screen = Opened(app, pilot, app.session.engine)  # type: ignore[arg-type]
        await screen.until(lambda: app.pane_in_front is not None, "the first tab")
        if changes:
            app.set_recipe(changes)
        wanted = catalog_skeleton(app.session.recipe.model.source)
        await screen.until(lambda: app.session.skeleton is wanted, "the module tree")
        app._header.show_memory(app.session.gpus, app.session.host)
        await screen.tab(tab)
        await screen.press(*keys)
        await screen.until(lambda: until in screen.words, until)
        await screen.at_rest()

    return before


@pytest.mark.parametrize("size", SIZES)
def test_models(snap_compare: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    assert snap_compare(app_on(tmp_path), terminal_size=size, run_before=ready("models", until="Fits: needs"))


@pytest.mark.parametrize("size", SIZES)
def test_architecture(snap_compare: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    before = ready("architecture", *["down"] * 8, until="lora_A")
    assert snap_compare(app_on(tmp_path), terminal_size=size, run_before=before)


@pytest.mark.parametrize("size", SIZES)
def test_adapter(snap_compare: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    changes = {"model.source": "meta-llama/Llama-3.1-8B", "adapter.r": 64}
    before = ready("adapter", "down", changes=changes, until="largest that fits")
    assert snap_compare(app_on(tmp_path), terminal_size=size, run_before=before)


def test_adapter_that_does_not_fit(snap_compare: Any, tmp_path: Path) -> None:
    changes = {"model.source": "meta-llama/Meta-Llama-3-70B", "training.per_device_train_batch_size": 64}
    before = ready("adapter", changes=changes, until="F apply")
    assert snap_compare(app_on(tmp_path), terminal_size=WIDE, run_before=before)


def test_adapter_with_a_mistake_being_typed(snap_compare: Any, tmp_path: Path) -> None:
    before = ready("adapter", "enter", "0", until="expected a whole number")
    assert snap_compare(app_on(tmp_path), terminal_size=NARROW, run_before=before)


def test_light(snap_compare: Any, tmp_path: Path) -> None:
    async def before(pilot: Pilot[None]) -> None:
        pilot.app.theme = "workbench-light"
        await ready("architecture", until="q_proj")(pilot)

    assert snap_compare(app_on(tmp_path), terminal_size=WIDE, run_before=before)


def test_help(snap_compare: Any, tmp_path: Path) -> None:
    assert snap_compare(
        app_on(tmp_path), terminal_size=NARROW, run_before=ready("architecture", "f1", until="Help: Architecture")
    )


def test_quitting_while_a_run_is_live(snap_compare: Any, tmp_path: Path) -> None:
    app = app_on(tmp_path)
    engine = app.session.engine
    assert isinstance(engine, ScriptedEngine)

    async def before(pilot: Pilot[None]) -> None:
        engine.begin(Recipe(), max_steps=200)
        engine.step(50, 1.25)
        await ready("models", until="step 50/200")(pilot)
        await pilot.press("ctrl+q")
        await pilot.pause()

    assert snap_compare(app, terminal_size=NARROW, run_before=before)
