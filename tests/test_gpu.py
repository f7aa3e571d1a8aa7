"""The hardware's figures: the real ones of this host, and a stand-in for NVML, whose failures need a GPU to happen."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from workbench.engine.metrics.peak_memory import _driver_bytes
from workbench.engine.model.hardware import hardware_facts
from workbench.machine import gpu as machine_gpu
from workbench.machine.gpu import GpuProcess, GpuSample, GpuSampler, first_gpu, gpus_now
from workbench.machine.hardware import HardwareSampler, computes_bfloat16, hardware_now
from workbench.machine.host import HostSampler, _container_memory
from workbench.planning.doctor.checks import checks
from workbench.storage.paths import Home


class NVMLError(Exception):
    """As pynvml's."""


class FakeNvml:
    """Two GPUs as NVML tells of them. The queries in ``broken`` fail, the ones in ``unknown`` are not there."""

    NVMLError = NVMLError
    nvmlMemory_v2 = 2  # noqa: N815

    def __init__(self, broken: tuple[str, ...] = (), unknown: tuple[str, ...] = ()) -> None:
        self.broken, self.unknown, self.is_open = broken, unknown, False
        self.opened = 0

    def __getattribute__(self, name: str):  # type: ignore[no-untyped-def]
        if name.startswith("nvml") and name in object.__getattribute__(self, "unknown"):
            raise AttributeError(name)
        if name.startswith("nvml") and name in object.__getattribute__(self, "broken"):
            return self.fail
        return object.__getattribute__(self, name)

    def fail(self, *_: object) -> None:
        raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:  # noqa: N802
        self.is_open = True
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"570.86"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"gpu{index}"

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> tuple[int, int]:  # noqa: N802
        return (8, 0) if handle == "gpu0" else (7, 5)

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return f"GPU-{handle[-1] * 8}-0000"

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"NVIDIA H200 {handle[-1]}"

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int | None = None) -> SimpleNamespace:  # noqa: N802
        if version == 2:
            return SimpleNamespace(total=1000, used=300, free=650, reserved=50)
        return SimpleNamespace(total=1000, used=350, free=650)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=96, memory=40)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 612_400

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:  # noqa: N802
        return 700_000

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return {1: 1410}[kind]

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return {1: 1980}[kind]

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        return [0, 0]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=200), SimpleNamespace(pid=2**22 + 5, usedGpuMemory=None)]

    def nvmlSystemGetProcessName(self, pid: int) -> str:  # noqa: N802
        if pid == os.getpid():
            return "/usr/bin/python3.11"
        raise NVMLError("Not Found")


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_every_figure_of_a_gpu() -> None:
    sampler = GpuSampler(FakeNvml())
    first, second = sampler.sample()
    assert (first.index, first.name, second.index) == (0, "NVIDIA H200 0", 1)
    assert (first.total_bytes, first.used_bytes, first.free_bytes) == (1000, 300, 650)
    assert (first.utilization, first.temperature) == (96, 61)
    assert (first.power_watts, first.power_limit) == (612.4, 700.0)
    user = psutil.Process().username()
    assert first.processes == (GpuProcess(os.getpid(), "python3.11", 200, user=user), GpuProcess(2**22 + 5, None, None))
    assert (first.clock_mhz, first.max_clock_mhz) == (1410, 1980)
    assert (first.label, first.mig_instance, first.has_unified_memory) == ("0", None, False)
    assert (sampler.driver, sampler.reason) == ("570.86", "")


@pytest.mark.parametrize(
    ("query", "field", "without"),
    [
        ("nvmlDeviceGetName", "name", "GPU"),
        ("nvmlDeviceGetMemoryInfo", "used_bytes", None),
        ("nvmlDeviceGetUtilizationRates", "utilization", None),
        ("nvmlDeviceGetTemperature", "temperature", None),
        ("nvmlDeviceGetPowerUsage", "power_watts", None),
        ("nvmlDeviceGetEnforcedPowerLimit", "power_limit", None),
        ("nvmlDeviceGetComputeRunningProcesses", "processes", ()),
        ("nvmlDeviceGetClockInfo", "clock_mhz", None),
        ("nvmlDeviceGetMaxClockInfo", "max_clock_mhz", None),
    ],
)
@pytest.mark.parametrize("how", ["broken", "unknown"])
def test_one_failing_query_leaves_the_others(query: str, field: str, without: object, how: str) -> None:
    whole = GpuSampler(FakeNvml()).sample()[0]
    sample = GpuSampler(FakeNvml(**{how: (query,)})).sample()[0]
    assert getattr(sample, field) == without
    same = {name for name in vars(whole) if vars(sample)[name] == vars(whole)[name]}
    memory = {"total_bytes", "used_bytes", "free_bytes"}
    assert set(vars(whole)) - same == (memory if field in memory else {field})


class DividedNvml(FakeNvml):
    """The first GPU is divided into two MIG instances, of which the middle place is free; the second is whole."""

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        return [int(handle == "gpu0"), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:  # noqa: N802
        if index == 1:
            raise NVMLError("Not Found")
        return f"{handle}-mig{index}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return f"MIG-{handle[-1] * 8}" if "mig" in handle else super().nvmlDeviceGetUUID(handle)

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int | None = None) -> SimpleNamespace:  # noqa: N802
        whole = super().nvmlDeviceGetMemoryInfo(handle, version)
        return SimpleNamespace(total=100, used=30, free=70) if "mig" in handle else whole

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        if "mig" in handle:
            raise NVMLError("Not Supported")
        return 61


def test_the_instances_of_a_divided_gpu_are_told_instead_of_it() -> None:
    first, second, whole = GpuSampler(DividedNvml()).sample()
    assert [one.label for one in (first, second, whole)] == ["0:0", "0:2", "1"]
    assert (first.index, first.total_bytes, first.free_bytes, first.temperature) == (0, 100, 70, 61)
    assert (whole.total_bytes, whole.mig_instance) == (1000, None)
    assert [one.device for one in (first, second, whole)] == ["MIG-00000000", "MIG-22222222", 1]


def test_an_instance_is_chosen_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2222")
    assert [one.label for one in GpuSampler(DividedNvml()).sample()] == ["0:2"]


def test_a_gpu_in_the_hosts_memory_has_its_sizes() -> None:
    error = NVMLError("Not Supported")
    error.value = 3  # type: ignore[attr-defined]

    class Integrated(FakeNvml):
        def nvmlDeviceGetMemoryInfo(self, handle: str, version: int | None = None) -> SimpleNamespace:  # noqa: N802
            raise error

    sample = GpuSampler(Integrated()).sample()[0]
    assert sample.has_unified_memory
    assert sample.total_bytes == HostSampler().sample().total_bytes
    assert sample.used_bytes is not None
    assert sample.free_bytes == sample.total_bytes - sample.used_bytes


def test_an_old_driver_knows_only_the_first_memory_query(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    first = nvml.nvmlDeviceGetMemoryInfo

    def old(handle: str, version: int | None = None) -> SimpleNamespace:
        if version:
            raise NVMLError("Function Not Found")
        return first(handle)

    monkeypatch.setattr(nvml, "nvmlDeviceGetMemoryInfo", old, raising=False)
    assert GpuSampler(nvml).sample()[0].used_bytes == 350


@pytest.mark.parametrize(
    ("variable", "indices"),
    [("1", [1]), ("1,0", [1, 0]), ("0, 7, 1", [0]), ("", []), ("-1", []), ("GPU-1111", [1]), ("MIG-x", [0, 1])],
)
def test_only_the_gpus_that_cuda_may_use(variable: str, indices: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    sampler = GpuSampler(FakeNvml())
    assert [gpu.index for gpu in sampler.sample()] == indices
    assert bool(sampler.reason) is not bool(indices)


def test_a_driver_that_does_not_start_gives_its_reason() -> None:
    sampler = GpuSampler(FakeNvml(broken=("nvmlInit",)))
    assert sampler.sample() == []
    assert "Not Supported" in sampler.reason


def test_no_gpu_under_a_driver() -> None:
    sampler = GpuSampler(FakeNvml(broken=("nvmlDeviceGetCount",)))
    assert (sampler.sample(), sampler.reason) == ([], "the driver finds no GPU")


def test_closing_ends_it() -> None:
    nvml = FakeNvml()
    sampler = GpuSampler(nvml)
    sampler.close()
    assert not nvml.is_open
    assert sampler.sample() == []


def _doctor() -> None:
    assert any(check.name == "NVIDIA driver" for check in checks(Home(Path("/nowhere"))))


@pytest.mark.parametrize(
    "read",
    [gpus_now, first_gpu, hardware_now, hardware_facts, _driver_bytes, _doctor],
    ids=["all", "first", "hardware", "a run's facts", "a run's peak", "doctor"],
)
def test_whoever_reads_once_lets_go_of_the_driver(read: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setattr(machine_gpu, "_load_pynvml", lambda: nvml)
    read()
    assert (nvml.opened, nvml.is_open) == (1, False)


def test_a_driver_without_a_gpu_is_let_go_of_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    nvml = FakeNvml()
    with GpuSampler(nvml) as sampler:
        assert sampler.sample() == []
    assert (nvml.opened, nvml.is_open) == (1, False)


def test_the_real_library_on_this_machine() -> None:
    """With a GPU its figures add up; without one there is a reason and no exception."""
    sampler = GpuSampler()
    gpus = sampler.sample()
    assert bool(gpus) is not bool(sampler.reason)
    for gpu in gpus:
        assert gpu.total_bytes is None or gpu.total_bytes >= (gpu.used_bytes or 0) > 0


def test_the_host() -> None:
    sample = HostSampler().sample(os.getpid())
    assert 0 <= sample.cpu_percent <= 100
    assert sample.used_bytes + sample.available_bytes == sample.total_bytes <= psutil.virtual_memory().total
    assert sample.process_bytes
    assert 10_000_000 < sample.process_bytes < sample.total_bytes


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert HostSampler().sample(2**22 + 5).process_bytes is None


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("4000\n")
    (tmp_path / "memory.current").write_text("1500\n")
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 500\nactive_file 100\n")
    assert _container_memory(tmp_path) == (4000, 1000)
    (tmp_path / "memory.max").write_text("max\n")
    assert _container_memory(tmp_path) is None
    assert _container_memory(tmp_path / "none") is None


def test_sampling_needs_no_torch() -> None:
    code = (
        "import sys; from workbench.machine.hardware import HardwareSampler; gpus, host = HardwareSampler().sample();"
        "assert host.total_bytes; print('torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


def test_both_in_one_reading() -> None:
    gpus, host = HardwareSampler().sample()
    assert isinstance(gpus, list)
    assert host.total_bytes > 0


@pytest.mark.parametrize(("capability", "computes"), [((7, 5), False), ((8, 0), True), ((9, 0), True), (None, True)])
def test_bfloat16_is_a_matter_of_the_compute_capability(capability: tuple[int, int] | None, computes: bool) -> None:
    assert computes_bfloat16(GpuSample(0, "GPU", compute_capability=capability)) is computes


def test_the_processor_is_judged_as_torch_judges_it() -> None:
    import torch

    known = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert computes_bfloat16(None) == known
