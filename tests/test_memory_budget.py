"""One memory budget for Adapter tab, start check, queue and run: no two of them say different things."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from screens.session import Session
from screens.shell.cost_view import costs_of
from tests.screens.scripted import ScriptedEngine
from workbench.engine.client.protocol import DeviceFacts, EngineStatus, LoadedModel
from workbench.engine.training import choice
from workbench.machine import gpu as machine_gpu
from workbench.machine.device import CUDA_CONTEXT_BYTES, Device
from workbench.machine.gpu import GpuProcess, GpuSample, other_processes
from workbench.machine.host import HostSample
from workbench.machine.memory_budget import MemoryBudget
from workbench.machine.torch_build import is_gpu_build
from workbench.models.catalog import catalog_skeleton
from workbench.planning.launch import Launch
from workbench.planning.memory import budget_of_run
from workbench.planning.start_checks import judge
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home

GIB = 2**30
HOME = Home(Path("/here"))
GPU = GpuSample(0, "NVIDIA L4", 24 * GIB, 4 * GIB, 20 * GIB, compute_capability=(8, 9))
HOST = HostSample(10.0, 64 * GIB, 24 * GIB, 40 * GIB)
LLAMA = "meta-llama/Llama-2-7b-hf"
WIDE = edit(Recipe(), {"model.source": LLAMA, "quantization.method": "none"})


def status(kind: str, **fields: Any) -> EngineStatus:
    device = DeviceFacts(kind=kind, name="x", total_bytes=64 * GIB)  # type: ignore[arg-type]
    return EngineStatus(pid=1, version="0", started=0.0, device=device, **fields)


def gpu(index: int, free: int | None, total: int = 24, **fields: Any) -> GpuSample:
    return GpuSample(index, "L4", total * GIB, None, None if free is None else free * GIB, **fields)


def session_with(tmp_path: Path, *gpus: GpuSample, **fields: Any) -> Session:
    """What a terminal knows: the GPUs it samples, the host, and the recipe on a model whose tree is there."""
    home = Home(tmp_path)
    session = Session(home, ScriptedEngine(home))
    session.load()
    session.recipe, session.skeleton = WIDE, catalog_skeleton(LLAMA)
    session.gpus, session.host = gpus, HOST
    for name, value in fields.items():
        setattr(session, name, value)
    return session


def agree(session: Session) -> MemoryBudget:
    """The budget of the start check and the queue, once the Adapter tab has shown the same."""
    costs, budget = costs_of(session), session.run_budget
    assert costs.budget == budget
    assert costs.price is not None
    assert session.skeleton is not None
    verdict = judge(session.skeleton, session.recipe, budget, session.traces)
    assert (None if verdict is None else verdict.needed_bytes) == (costs.fit and costs.price.peak.device_bytes)
    return budget


# -- one GPU ----------------------------------------------------------------------------------------------------------


def test_the_budget_is_that_of_the_gpu_with_what_the_engine_gives_back() -> None:
    budget = budget_of_run(HOME, [GPU], HOST)
    assert (budget.place, budget.free_bytes, budget.label) == ("GPU 0 (NVIDIA L4)", 20 * GIB, "VRAM")
    assert budget.device == Device("cuda", bfloat16=True, compute_capability=8)
    # The engine's CUDA context stays for the run, and a predicted peak counts one.
    held = budget_of_run(HOME, [GPU], HOST, status("cuda", reserved=3 * GIB))
    assert held.free_bytes == 23 * GIB + CUDA_CONTEXT_BYTES
    assert budget_of_run(HOME, [GPU], HOST, status("cuda", reserved=9 * GIB)).free_bytes == 24 * GIB


def test_the_run_itself_counts_the_same_gpu_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 3 * GIB)
    monkeypatch.setattr(choice, "device_of", lambda base: Device())
    before = budget_of_run(HOME, [GPU], HOST, status("cuda", reserved=3 * GIB))
    assert choice._free_bytes(SimpleNamespace(footprint=3 * GIB), 1) == before.free_bytes  # type: ignore[arg-type]


def test_what_is_not_known_has_no_size() -> None:
    assert budget_of_run(HOME, [GpuSample(0, "Orin")], HOST).free_bytes is None
    assert budget_of_run(HOME, [], None).free_bytes is None


# -- the CPU ----------------------------------------------------------------------------------------------------------


def test_without_a_gpu_adapter_tab_start_check_and_run_count_the_host_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LoadedModel(source="m", method="nf4", bytes=2 * GIB)
    budget = agree(session_with(tmp_path, status=status("cpu", model=model)))
    assert (budget.device.kind, budget.free_bytes, budget.label) == ("cpu", 42 * GIB, "host RAM, no GPU")
    monkeypatch.setattr(choice, "HostSampler", lambda: SimpleNamespace(sample=lambda: HOST))
    monkeypatch.setattr(choice, "device_of", lambda base: budget.device)
    assert choice._free_bytes(SimpleNamespace(footprint=2 * GIB), 1) == budget.free_bytes  # type: ignore[arg-type]


def test_processes_without_a_gpu_share_the_hosts_memory_before_and_after_each_has_loaded_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = agree(session_with(tmp_path, status=status("cpu"), launch=Launch(processes=4)))
    assert (budget.place, budget.free_bytes) == ("this machine for each of 4 processes (CPU training)", 10 * GIB)
    loaded = HostSample(10.0, 64 * GIB, 32 * GIB, 32 * GIB)
    monkeypatch.setattr(choice, "HostSampler", lambda: SimpleNamespace(sample=lambda: loaded))
    monkeypatch.setattr(choice, "device_of", lambda base: budget.device)
    assert choice._free_bytes(SimpleNamespace(footprint=2 * GIB), 4) == budget.free_bytes  # type: ignore[arg-type]


# -- a PyTorch that cannot use the GPUs -------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"status": status("cpu")}, {"has_gpu_build": False}], ids=["engine", "build"])
def test_gpus_that_pytorch_cannot_use_are_no_memory(tmp_path: Path, fields: dict[str, Any]) -> None:
    budget = agree(session_with(tmp_path, GPU, **fields))
    assert (budget.device.kind, budget.free_bytes) == ("cpu", 40 * GIB)
    assert budget.label == "host RAM; PyTorch cannot use the GPU"
    assert costs_of(session_with(tmp_path, GPU, **fields)).memory_word == "memory"


def test_the_engine_knows_better_than_the_build() -> None:
    used = budget_of_run(HOME, [GPU], HOST, status("cuda"), has_gpu_build=False)
    assert (used.device.kind, used.free_bytes) == ("cuda", 20 * GIB)


@pytest.mark.parametrize(
    ("lines", "has_gpus"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", True),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.3.1'\n", True),
        ("__all__ = ['cuda', 'hip']\ncuda = None\n", False),
    ],
)
def test_the_build_of_pytorch_is_read_from_its_files(lines: str, has_gpus: bool) -> None:
    assert is_gpu_build(f"__version__ = '2.13.0'\n{lines}git_version = 'abc'\n") is has_gpus


def test_the_installed_pytorch_says_of_itself_what_its_files_say() -> None:
    import torch

    version_file = Path(torch.__file__).with_name("version.py").read_text(encoding="utf-8")
    assert is_gpu_build(version_file) == (torch.version.cuda is not None or torch.version.hip is not None)


# -- chosen GPUs ------------------------------------------------------------------------------------------------------


def test_chosen_gpus_are_those_that_the_adapter_tab_judges_by(tmp_path: Path) -> None:
    gpus = gpu(0, 2), gpu(1, 9), gpu(3, 20)
    alone = session_with(tmp_path, *gpus, launch=Launch.on([3]))
    assert (agree(alone).free_bytes, agree(alone).label) == (20 * GIB, "VRAM of GPU 3")
    assert [label.split(",")[0] for label, _ in costs_of(alone).other_gpus] == ["GPU 0 L4", "GPU 1 L4"]
    both = agree(session_with(tmp_path, *gpus, launch=Launch.on([3, 1])))
    assert (both.free_bytes, both.label) == (9 * GIB, "VRAM of GPU 1")
    first = session_with(tmp_path, *gpus)
    assert (agree(first).free_bytes, agree(first).label) == (2 * GIB, "VRAM")


def free_of(*gpus: GpuSample, launch: Launch, reserved: int = 0) -> tuple[str, float] | None:
    found = budget_of_run(HOME, gpus, HOST, status("cuda", reserved=reserved * GIB), launch)
    return None if found.free_bytes is None else (found.place, found.free_bytes / GIB)


def test_the_fullest_of_the_gpus_that_are_taken_decides() -> None:
    gpus = (gpu(0, 2), gpu(1, 9), gpu(3, 20), gpu(4, None))
    assert free_of(*gpus, launch=Launch.on([3])) == ("GPU 3 (L4)", 20)
    assert free_of(*gpus, launch=Launch.on([3, 1])) == ("GPU 1 (L4), the fullest of 2 GPUs", 9)
    # Without numbers the first ones are taken.
    assert free_of(*gpus, launch=Launch(processes=2)) == ("GPU 0 (L4), the fullest of 2 GPUs", 2)
    # One that does not tell its memory does not keep the others from deciding.
    assert free_of(*gpus, launch=Launch.on([3, 4])) == ("GPU 3 (L4), the fullest of 2 GPUs", 20)
    assert free_of(*gpus, launch=Launch.on([4])) is None
    # What the engine holds lies on the first one.
    assert free_of(*gpus, launch=Launch.on([0, 1]), reserved=8) == ("GPU 1 (L4), the fullest of 2 GPUs", 9)
    assert free_of(*gpus, launch=Launch.on([1, 3]), reserved=8) == ("GPU 1 (L4), the fullest of 2 GPUs", 9)


def test_a_base_that_is_sharded_is_not_judged(tmp_path: Path) -> None:
    small = (gpu(0, 12, 12), gpu(1, 12, 12))
    alone, both = (session_with(tmp_path, *small, launch=Launch.on(devices)) for devices in ([1], [0, 1]))
    # 13.5 GB of weights: one GPU of 12 GiB cannot, two hold a half each.
    assert agree(alone).free_bytes == 12 * GIB
    assert costs_of(alone).fit is not None
    assert judge(catalog_skeleton(LLAMA), WIDE, both.run_budget) is None  # type: ignore[arg-type]
    assert costs_of(both).fit is None
    # In 4 bits each holds all of it.
    both.recipe = edit(WIDE, {"quantization.method": "nf4"})
    assert agree(both).free_bytes == 12 * GIB


def test_a_configuration_of_accelerate_that_may_shard_is_not_judged(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    for kind, known in {"DEEPSPEED": False, "FSDP": False, "MULTI_GPU": True}.items():
        file.write_text(f"distributed_type: {kind}\n")
        launch = Launch(processes=2, config_file=str(file))
        assert (budget_of_run(HOME, (gpu(0, 12), gpu(1, 12)), HOST, None, launch).free_bytes is not None) == known


# -- what a running run frees -----------------------------------------------------------------------------------------


def test_what_the_processes_of_this_homes_run_hold_is_free_for_the_next_one() -> None:
    mine, other_home = GpuProcess(7, "python", 15 * GIB, "/here"), GpuProcess(8, "python", 3 * GIB, "/elsewhere")
    foreign = GpuProcess(9, "vllm", 2 * GIB)
    gpus = (gpu(0, 4, processes=(mine, foreign)), gpu(1, 3, processes=(mine, other_home)))
    assert free_of(*gpus, launch=Launch.on([0, 1])) == ("GPU 1 (L4), the fullest of 2 GPUs", 18)
    # Whichever is known to be more of what the engine holds: the driver's figure, or the allocator's.
    assert free_of(*gpus, launch=Launch.on([0]), reserved=1) == ("GPU 0 (L4)", 19)


def test_processes_of_an_engine_and_of_its_runs_are_told_by_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {
        1: [sys.executable, "-P", "-m", "workbench.engine.daemon.server", "--home", "/here"],
        2: [sys.executable, "-m", "workbench.engine.distributed.worker", "--home", "/here", "--engine", "/x", "run"],
        3: [sys.executable, "serve.py", "--home", "/here"],
        4: [sys.executable, "-m", "workbench.engine.daemon.server", "--home"],
    }
    uid = psutil.Process().uids()

    def process(pid: int) -> SimpleNamespace:
        if pid not in lines:
            raise psutil.NoSuchProcess(pid)
        return SimpleNamespace(uids=lambda: uid, cmdline=lambda: lines[pid])

    monkeypatch.setattr(machine_gpu.psutil, "Process", process)
    assert [machine_gpu._home_of(pid) for pid in (1, 2, 3, 4, 5)] == ["/here", "/here", None, None, None]


def test_others_on_a_gpu_are_those_without_a_home() -> None:
    processes = GpuProcess(7, "python", 1, "/here"), GpuProcess(8, "a", 2), GpuProcess(9, "b", 3)
    assert [process.pid for process in other_processes(gpu(0, 1, processes=processes))] == [9, 8]


# -- a typed limit ----------------------------------------------------------------------------------------------------


def test_a_typed_limit_binds_a_start_and_lets_settings_be_judged_for_a_larger_machine(tmp_path: Path) -> None:
    lower = session_with(tmp_path, GPU, typed_budget=8 * GIB)
    assert agree(lower).free_bytes == 8 * GIB
    assert costs_of(lower).budget.label == "your memory limit"
    higher = session_with(tmp_path, GPU, typed_budget=80 * GIB)
    assert costs_of(higher).budget.free_bytes == 80 * GIB
    # A run started here gets no more than there is.
    assert (higher.run_budget.free_bytes, higher.run_budget.place) == (20 * GIB, "GPU 0 (NVIDIA L4)")
