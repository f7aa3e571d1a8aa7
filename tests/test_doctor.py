"""The checks, run for real; and what they say of machines that differ from this one."""

import os
import sys
from pathlib import Path

import pytest

from workbench.errors import WorkbenchError
from workbench.machine.gpu import GpuSampler
from workbench.planning.doctor import gpu, probes, system
from workbench.planning.doctor.check import Check
from workbench.planning.doctor.checks import checks
from workbench.planning.doctor.probes import BitsandbytesProbe, CudaDevice, TorchProbe
from workbench.planning.doctor.torch_set import SETS, TORCH, torch_build
from workbench.storage.paths import Home


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Check]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_TOKEN", "hf_verysecretvalue")
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        return {check.name: check for check in checks(Home(tmp_path_factory.mktemp("home") / "new"))}


def test_every_check_answers(found: dict[str, Check]) -> None:
    names = {"Python", "Home", "Disk", "Memory", "Terminal", "NVIDIA driver", "torch", "CUDA", "bitsandbytes"}
    assert names | {"Libraries", "Reporters", "Kernels", "Hub token", "Hub"} <= set(found)
    for check in found.values():
        assert check.found
        assert (check.ok == "ok") or (check.consequence and check.cure), check


def test_what_they_find_here(found: dict[str, Check]) -> None:
    import torch

    assert found["Python"].ok == "ok"
    assert sys.executable in found["Python"].found
    assert found["torch"].ok == "ok"
    assert torch.__version__ in found["torch"].found
    assert found["bitsandbytes"].ok == "ok"
    assert "nf4 and int8 work on" in found["bitsandbytes"].found
    assert found["Hub"].ok == "warning"
    assert "127.0.0.1:9" in found["Hub"].found


def test_the_token_is_named_and_not_shown(found: dict[str, Check]) -> None:
    assert found["Hub token"] == Check("Hub token", "ok", "present in HF_TOKEN")
    assert not any("verysecret" in str(check) for check in found.values())


def test_looking_makes_no_home(tmp_path: Path) -> None:
    assert system.home(Home(tmp_path / "a" / "b")).ok == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written() -> None:
    check = system.home(Home(Path("/proc/nothing")))
    assert check.ok == "problem"
    assert "--home" in check.cure


def _crash() -> None:
    os.abort()


def test_a_library_that_crashes_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe's process really dies of a signal; the check says so."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    answer = probes.probe(_crash, TorchProbe)
    assert isinstance(answer, WorkbenchError)
    assert answer.kind == "crashed"
    assert "SIGABRT" in answer.message
    check = gpu.bitsandbytes(answer)
    assert check.ok == "problem"
    assert check.cure


@pytest.mark.usefixtures("fresh_processes")  # which import torch; a fork would answer in time
def test_a_probe_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_PROBE_SECONDS", 0.1)
    answer = probes.probe(probes.probe_torch, TorchProbe)
    assert isinstance(answer, WorkbenchError)
    assert "no answer" in answer.message


def _torch_probe(cuda: str | None, capability: tuple[int, int] | None = None) -> TorchProbe:
    devices = [CudaDevice("NVIDIA T4", list(capability))] if capability else []
    return TorchProbe("2.13", 2, cuda, devices, reason="too old", cure="Update.")


@pytest.mark.parametrize(
    ("cuda", "capability", "has_gpu", "level", "word"),
    [
        ("12.8", (9, 0), True, "ok", "sm_90"),
        ("12.8", (7, 5), True, "warning", "sm_75"),
        ("12.8", None, True, "problem", "too old"),
        ("12.8", None, False, "warning", "not usable"),
        (None, None, True, "problem", "though there is a GPU"),
        (None, None, False, "warning", "CPU build"),
    ],
)
def test_cuda_on_other_machines(
    cuda: str | None, capability: tuple[int, int] | None, has_gpu: bool, level: str, word: str
) -> None:
    check = gpu.cuda(_torch_probe(cuda, capability), has_gpu=has_gpu)
    assert check.ok == level
    assert word in check.found
    assert (check.ok == "ok") or (check.consequence and check.cure)


def test_wrong_numbers_of_bitsandbytes_are_a_problem() -> None:
    check = gpu.bitsandbytes(BitsandbytesProbe("0.50", "cuda", error=0.8))
    assert check.ok == "problem"
    assert "wrong results" in check.found


@pytest.mark.parametrize(("free", "level"), [(5e8, "problem"), (5e9, "warning"), (5e10, "ok")])
def test_room_on_the_disk(free: float, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free}))
    assert system.disk("Disk", tmp_path / "not" / "yet", "Runs need room.", "--home").ok == level


@pytest.mark.parametrize(
    ("term", "encoding", "size", "level"),
    [
        ("xterm-256color", "utf-8", (120, 40), "ok"),
        ("xterm", "ISO-8859-1", (120, 40), "warning"),
        ("dumb", "utf-8", (120, 40), "problem"),
        ("xterm", "UTF-8", (60, 20), "warning"),
    ],
)
def test_terminals(
    term: str, encoding: str, size: tuple[int, int], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", str(size[0]))
    monkeypatch.setenv("LINES", str(size[1]))
    stream = type("Stream", (), {"isatty": lambda self: True, "encoding": encoding})()
    monkeypatch.setattr(system.sys, "stdout", stream)
    assert system.terminal().ok == level


def test_a_driver_without_a_gpu_says_why() -> None:
    class NoLibrary:
        NVMLError = RuntimeError

        def nvmlInit(self) -> None:  # noqa: N802
            raise RuntimeError("Driver/library version mismatch")

    check = gpu.driver(GpuSampler(NoLibrary()))
    assert check.ok == "warning"
    assert "version mismatch" in check.found


@pytest.mark.parametrize(
    ("driver", "capability", "built_for", "level", "words"),
    [
        ("580.95.05", (9, 0), "13.0", "ok", "cuda-13.txt"),
        ("570.86.15", (9, 0), "12.9", "ok", "cuda-12.8.txt"),
        ("570.86.15", (9, 0), "13.0", "problem", "cannot run"),
        ("550.54.14", (8, 0), "12.6", "ok", "cuda-12.6.txt"),
        ("550.54.14", (8, 0), None, "warning", "torch==2.13.0+cu126"),
        ("580.95.05", (6, 1), "12.6", "ok", "cuda-12.6.txt"),
        ("580.95.05", (7, 0), "12.9", "ok", "cuda-12.8.txt"),
        ("570.86.15", (12, 0), "12.9", "ok", "cuda-12.8.txt"),
        ("550.54.14", (12, 0), None, "problem", "Blackwell GPUs 570"),
        ("470.82.01", (8, 6), "12.6", "problem", "driver 525"),
    ],
)
def test_the_constraint_set_for_a_driver(
    driver: str, capability: tuple[int, int], built_for: str | None, level: str, words: str
) -> None:
    (check,) = torch_build(driver, [capability], built_for)
    assert check.ok == level
    assert words in f"{check.found} {check.consequence} {check.cure}"


def test_without_a_driver_no_build_is_named() -> None:
    assert list(torch_build("", [], None)) == []


def test_each_constraint_set_is_ours_with_one_build_of_torch() -> None:
    root = Path(__file__).parents[1]
    assert f"torch=={TORCH}\n" in (root / "constraints.txt").read_text()
    assert {file.stem for file in (root / "constraints").glob("*.txt")} == {one.name for one in SETS}
    for one in SETS:
        lines = (root / "constraints" / f"{one.name}.txt").read_text().splitlines()
        assert [line for line in lines if not line.startswith("#")] == [
            f"--extra-index-url https://download.pytorch.org/whl/{one.index}",
            "-c ../constraints.txt",
            f"torch=={TORCH}+{one.index}",
        ]
