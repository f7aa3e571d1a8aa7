"""The GPUs of the next run: who is on them, which are taken, and what the engine is told."""

from pathlib import Path

from screens.queue.start_checks import confirm_fit
from screens.train.gpu_choice import GpuChoiceDialog
from screens.train.gpu_monitor import GpuMonitor
from tests.screens.piloting import WIDE, opened
from tests.screens.scripted import ScriptedEngine
from workbench.engine.client.protocol import DeviceFacts
from workbench.machine.gpu import GpuProcess, GpuSample
from workbench.models.catalog import catalog_skeleton
from workbench.planning.launch import Launch
from workbench.planning.queue import Queue, QueueRequest
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

GIB = 2**30
GPUS = (
    GpuSample(0, "NVIDIA A100", 40 * GIB, 2 * GIB, 38 * GIB),
    GpuSample(2, "NVIDIA A100", 40 * GIB, 31 * GIB, 9 * GIB, processes=(GpuProcess(4_000_001, "vllm", 30 * GIB),)),
    GpuSample(3, "NVIDIA [b]T4", 16 * GIB, 0, 16 * GIB),
)


async def test_gpus_are_ticked_and_the_run_is_started_on_them(tmp_path: Path) -> None:
    async with opened(tmp_path, size=WIDE) as screen:
        await screen.tab("train")
        screen.app.session.gpus = GPUS
        screen.app.pane_in_front.draw()
        await screen.press("G", "enter")
        await screen.until(lambda: isinstance(screen.app.screen, GpuChoiceDialog), "the dialog")
        await screen.sees("38.0 of 40.0 GiB free")
        await screen.sees("vllm (4000001) 30.0 GiB")
        await screen.sees("NVIDIA [b]T4")
        await screen.press("space", "enter")
        await screen.sees("Select at least one")
        await screen.press("space", "down", "down", "space", "enter")
        await screen.sees("4 × 4 × 2 = 32 records per step")
        await screen.sees("0, 3")
        await screen.press("enter")
        await screen.until(lambda: "train on (0, 3)" in screen.engine.asked, "the run is started on both")


async def test_a_run_is_held_against_the_memory_of_the_gpus_it_takes(tmp_path: Path) -> None:
    tree = catalog_skeleton(Recipe().model.source)
    engine = ScriptedEngine(Home(tmp_path), skeleton=tree)
    engine.backend.device = DeviceFacts(kind="cuda", name="scripted", total_bytes=40 * GIB)
    full = GpuSample(1, "NVIDIA T4", 16 * GIB, 15 * GIB, GIB // 8)
    async with opened(tmp_path, size=WIDE, engine=engine) as screen:
        await screen.tab("train")
        screen.app.session.skeleton = tree
        screen.app.session.gpus = (GPUS[0], full)
        for launch, room in ((Launch.on([1]), "GPU 1 (NVIDIA T4)."), (Launch.on([0, 1]), "the fullest of 2 GPUs.")):
            screen.app.session.launch = launch
            screen.app.run_worker(confirm_fit(screen.app, Recipe()))
            await screen.is_asked(room)
            await screen.press("n")
        screen.app.session.launch = None
        asked = screen.app.run_worker(confirm_fit(screen.app, Recipe()))
        assert await asked.wait() is not None


async def test_what_is_lined_up_runs_on_them_too(tmp_path: Path) -> None:
    """By the queue's own keys as by Train's."""
    engine = ScriptedEngine(Home(tmp_path))
    Queue(engine.home).apply(QueueRequest(action="hold"))
    async with opened(tmp_path, size=WIDE, engine=engine) as screen:
        await screen.tab("train")
        screen.app.session.gpus = GPUS
        screen.app.pane_in_front.draw()
        await screen.press("G", "enter")
        await screen.sees("no other processes")
        await screen.press("space", "down", "down", "space", "enter")
        await screen.press("q")
        await screen.sees("The queue is empty.")
        await screen.press("a")
        await screen.sees("GPU 3")
        await screen.press("w")
        await screen.sees("4 runs")
        await screen.press("enter")
        await screen.until(lambda: len(Queue(engine.home).read().waiting) == 5, "all are lined up")
        assert {entry.launch for entry in Queue(engine.home).read().waiting} == {Launch.on([3])}


async def test_with_one_gpu_there_is_nothing_to_choose(tmp_path: Path) -> None:
    async with opened(tmp_path, size=WIDE) as screen:
        await screen.tab("train")
        screen.app.session.gpus = GPUS[:1]
        screen.app.pane_in_front.draw()
        await screen.press("G", "enter")
        assert isinstance(screen.app.screen, GpuMonitor)


async def test_one_mig_instance_can_be_chosen_and_shared_memory_is_named(tmp_path: Path) -> None:
    name = "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    parts = [
        GpuSample(0, name, 5 * GIB, GIB, 4 * GIB, mig_instance=n, mig_uuid=f"MIG-{str(n) * 8}-{n}") for n in (0, 2)
    ]
    unified = GpuSample(1, "NVIDIA GB10", 128 * GIB, 28 * GIB, 100 * GIB, has_unified_memory=True)
    async with opened(tmp_path, size=WIDE, tab="train") as screen:
        screen.app.session.gpus = (*parts, unified)
        await screen.press("G", "enter")
        await screen.until(lambda: isinstance(screen.app.screen, GpuChoiceDialog), "the dialog")
        for words in ("0:0 NVIDIA A100", "MIG 1g.5gb", "0:2 NVIDIA A100", "MIG: each row is an instance"):
            await screen.sees(words)
        await screen.sees("100.0 of 128.0 GiB free (the host's)")
        await screen.sees("Unified memory: the GPU uses the host's memory")
        await screen.press("down", "space", "enter")
        await screen.sees("A MIG instance cannot train together")
        await screen.press("up", "space", "enter")
        await screen.sees("MIG-22222222")
        await screen.press("enter")
        await screen.until(lambda: "train on ('MIG-22222222-2',)" in screen.engine.asked, "started on the instance")
