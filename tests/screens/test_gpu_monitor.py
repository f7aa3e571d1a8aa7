"""Every GPU has a row, with its history and its processes, as NVML tells of them."""

from pathlib import Path

import pytest

from screens.hardware_history import HOST, SECONDS_KEPT, HardwareHistory
from screens.train.gpu_monitor import GpuMonitor
from screens.train.gpu_panel import GpuPanel
from screens.train.gpu_rows import gpu_row
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.test_gpu import DividedNvml, FakeNvml
from workbench.machine.gpu import GpuProcess, GpuSample, GpuSampler
from workbench.machine.host import HostSample

GIB = 2**30
BUSY = GpuSample(
    0, "NVIDIA H200", 139 * GIB, 31 * GIB, 108 * GIB, 96.0, 61.0, 612.0, 700.0,
    processes=(
        GpuProcess(4_000_001, "[b]vllm", 20 * GIB, user="somebody"),
        GpuProcess(4_000_002, "python", 8 * GIB, home="/home", user="me"),
    ),
    clock_mhz=1410, max_clock_mhz=1980,
)  # fmt: skip


async def monitor(screen: Opened) -> None:
    await screen.tab("train")
    await screen.press("G")
    await screen.until(lambda: isinstance(screen.app.screen, GpuMonitor), "the monitor")


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_gpu_has_its_figures_its_history_and_its_processes(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(tmp_path, size=size) as screen:
        session = screen.app.session
        session.gpus = (BUSY,)
        for second in range(0, 240, 4):
            session.hardware_history.add(second, (BUSY,), None)
        await monitor(screen)
        await screen.sees("31.0/139 GiB")
        for words in ("H200", "96 %", "61 °C", "memory 22 %", "load 96 %", "-5 min", "now", "50 %"):
            await screen.sees(words)
        for words in ("somebody", "20.00 GiB", "[b]vllm", "● 0     4000002  me", "python (loraworkbench)"):
            await screen.sees(words)
        assert ("612/700 W" in screen.words, "1410/1980 MHz" in screen.words) == (True, size == WIDE)
        lines = screen.words.splitlines()
        ours, theirs = (next(i for i, line in enumerate(lines) if pid in line) for pid in ("4000002", "4000001"))
        assert ours < theirs, "the workbench's own first"
        await screen.press("G")
        await screen.until(lambda: not isinstance(screen.app.screen, GpuMonitor), "closed")


async def test_each_of_several_has_a_row_and_the_arrows_choose_whose_history_is_drawn(tmp_path: Path) -> None:
    idle = GpuSample(1, "NVIDIA A100", 40 * GIB, GIB, 39 * GIB, 0.0)
    async with opened(tmp_path) as screen:
        session = screen.app.session
        session.gpus = (BUSY, idle)
        session.hardware_history.add(0, session.gpus, None)
        pane = await screen.tab("train")
        pane._show_hardware()  # type: ignore[attr-defined]
        await screen.sees("2 GPUs · G shows all")
        assert "1  ▕" in screen.words
        assert pane.query_one(GpuPanel).border_title
        await monitor(screen)
        await screen.sees("load 96 %")
        await screen.press("down")
        await screen.sees("load 0 %")
        await screen.sees("❯ 1 A100")


async def test_instances_and_shared_memory_are_named(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.session.gpus = tuple(GpuSampler(DividedNvml()).sample())
        await monitor(screen)
        await screen.sees("0:2 H200 MIG")
        await screen.sees("MIG: each row is an instance")
        screen.app.session.gpus = (GpuSample(0, "NVIDIA GB10", 8 * GIB, GIB, 7 * GIB, has_unified_memory=True),)
        await screen.sees("Unified memory: the GPU uses the host's memory")


async def test_a_machine_without_a_gpu_shows_its_memory_and_processor(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        session = screen.app.session
        session.host = HostSample(50.0, 64 * GIB, 16 * GIB, 48 * GIB)
        session.hardware_history.add(0, (), session.host)
        await monitor(screen)
        for words in ("16.0/64 GiB", "50 %", "CPU 50 %", "No GPU: training on the CPU."):
            await screen.sees(words)


def test_columns_drop_from_the_right_and_the_name_stays() -> None:
    for gpu in (BUSY, *GpuSampler(FakeNvml()).sample()):
        for width in range(40, 140):
            text = gpu_row(gpu, width).plain
            assert len(text) <= width
            assert "H200" in text
    assert "MHz" in gpu_row(BUSY, 120).plain
    assert "MHz" not in gpu_row(BUSY, 76).plain


def test_the_history_keeps_a_quarter_of_an_hour_of_each() -> None:
    history = HardwareHistory()
    unknown = GpuSample(1, "NVIDIA GB10")
    for second in range(2 * SECONDS_KEPT):
        history.add(second, (BUSY, unknown), None)
    assert [len(history.of(label)) for label in ("0", "1", HOST)] == [SECONDS_KEPT + 1, SECONDS_KEPT + 1, 0]
    assert history.of("0")[0].at == SECONDS_KEPT - 1
    assert (history.of("1")[-1].memory, history.of("1")[-1].load) == (None, None)
    assert history.of("0")[-1].load == 0.96
