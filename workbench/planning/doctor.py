"""Checks this machine for fine-tuning (Python, GPU, libraries, disk, hub): each finding with consequence and fix.

Checks that may crash in native code run in a separate process.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeVar

from workbench.errors import WorkbenchError
from workbench.machine.gpu import GpuSample, GpuSampler, HostSampler
from workbench.machine.hub import endpoint, is_offline, token_place
from workbench.models.child import run_in_child
from workbench.models.hub import unreachable_reason
from workbench.models.local import hub_cache
from workbench.recipe.fused_kernels import PACKAGES
from workbench.recipe.trackers import REPORTERS, is_installed
from workbench.storage.paths import Home
from workbench.units import part_of, size_in

_PROBE_SECONDS = 180.0
_PROBE_HUB_SECONDS = 3.0
_OLDEST_PYTHON = (3, 11)
_GB = 1e9

Probe = TypeVar("Probe")


@dataclass(frozen=True)
class Check:
    """The result of a check. ``consequence`` and ``cure`` are empty if everything is fine."""

    name: str
    ok: Literal["ok", "warning", "problem"]
    found: str
    consequence: str = ""
    cure: str = ""


@dataclass(frozen=True)
class _CudaDevice:
    name: str
    capability: list[int]


@dataclass(frozen=True)
class _TorchProbe:
    """What torch reports about itself and the GPUs it can use."""

    version: str
    threads: int
    cuda: str | None
    devices: list[_CudaDevice]
    reason: str
    cure: str


@dataclass(frozen=True)
class _BitsandbytesProbe:
    """Where bitsandbytes quantizes, and the mean error of nf4."""

    version: str
    device: str
    error: float


def checks(home: Home) -> Iterator[Check]:
    """Run all checks one by one; takes about 10 s in total, mostly to import the libraries."""
    yield _python()
    yield _home(home)
    yield from _disks(home)
    yield _memory()
    yield _terminal()
    with GpuSampler() as gpus:
        driver, has_gpu = _driver(gpus), bool(gpus.sample())
    yield driver
    torch = _probe("_probe_torch", _TorchProbe)
    yield _torch(torch)
    yield _cuda(torch, has_gpu=has_gpu)
    yield _bitsandbytes(_probe("_probe_bitsandbytes", _BitsandbytesProbe))
    yield _libraries()
    yield _reporters()
    yield _compiler()
    yield _kernels()
    yield _token()
    yield _hub()


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Check(
            "Python", "problem", found, "The workbench needs Python 3.11 or newer.", "Install it in a newer one."
        )
    return Check("Python", "ok", found)


def _home(home: Home) -> Check:
    """Check that the home is writable by writing to it; a missing home is not created."""
    folder = next(parent for parent in (home.root, *home.root.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(
            "Home",
            "problem",
            f"{home.root} cannot be written: {error.strerror}",
            "Runs, converted models and settings cannot be saved; the engine cannot start.",
            "Set another folder with --home or LORAWORKBENCH_HOME.",
        )
    return Check("Home", "ok", f"{home.root}" + ("" if home.root.exists() else " (created on first use)"))


def _disks(home: Home) -> Iterator[Check]:
    yield _disk("Disk", home.root, "Runs and converted models need disk space.", "--home")
    cache = hub_cache()
    if _device(cache) != _device(home.root):
        yield _disk("Disk of the hub's cache", cache, "Downloaded models need disk space.", "HF_HOME")


def _disk(name: str, folder: Path, use: str, way: str) -> Check:
    free = shutil.disk_usage(_existing(folder)).free
    found = f"{size_in('GB', free)} free at {folder}"
    cure = f"Delete unused files (`hf cache rm`, old runs), or choose another disk with {way}."
    if free < 1 * _GB:
        return Check(name, "problem", found, f"{use} Even the default model takes 0.5 GB while it is converted.", cure)
    if free < 20 * _GB:
        return Check(name, "warning", found, f"{use} A model of 7 billion parameters takes 14 GB.", cure)
    return Check(name, "ok", found)


def _memory() -> Check:
    host = HostSampler().sample()
    found = f"{part_of('GB', host.available_bytes, host.total_bytes)} available"
    if host.available_bytes < 3 * _GB:
        return Check(
            "Memory",
            "warning",
            found,
            "Loading a model may run out of memory, and the system then kills the engine.",
            "Close other programs, or raise the memory limit of the container.",
        )
    return Check("Memory", "ok", found)


def _terminal() -> Check:
    name = os.environ.get("TERM", "")
    if not sys.stdout.isatty():
        return Check("Terminal", "ok", "output is not a terminal")
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    size = shutil.get_terminal_size()
    depth = "no colors" if "NO_COLOR" in os.environ or name in ("", "dumb") else _colours(name)
    found = f"{name or 'TERM is not set'}, {size.columns}×{size.lines}, {sys.stdout.encoding}, {depth}"
    if encoding != "utf8":
        return Check(
            "Terminal",
            "warning",
            found,
            "Bars and charts are drawn in ASCII.",
            "Set a UTF-8 locale, such as `export LANG=C.UTF-8`.",
        )
    if name in ("", "dumb"):
        return Check(
            "Terminal",
            "problem",
            found,
            "The app cannot be shown; the commands work.",
            "Set TERM to your terminal type, such as xterm-256color.",
        )
    if size.columns < 80 or size.lines < 24:
        return Check("Terminal", "warning", found, "The app needs at least 80×24.", "Make the window larger.")
    return Check("Terminal", "ok", found)


def _colours(name: str) -> str:
    if os.environ.get("COLORTERM", "") in ("truecolor", "24bit"):
        return "16 million colors"
    return "256 colors" if "256" in name else "16 colors"


def _driver(gpus: GpuSampler) -> Check:
    found = [f"{gpu.index}: {gpu.name}, {_vram(gpu)}" for gpu in gpus.sample()]
    if found:
        return Check("NVIDIA driver", "ok", f"{gpus.driver or 'version N/A'}; " + "; ".join(found))
    return Check(
        "NVIDIA driver",
        "warning",
        gpus.reason,
        "No GPU can be used or monitored: everything runs on the CPU, which is practical below a billion parameters.",
        "On a machine with an NVIDIA GPU: install its driver; in a container: start it with `--gpus all`.",
    )


def _vram(gpu: GpuSample) -> str:
    if gpu.free_bytes is None or gpu.total_bytes is None:
        return "VRAM N/A"
    return f"{part_of('GiB', gpu.free_bytes, gpu.total_bytes)} free"


def _torch(probe: _TorchProbe | WorkbenchError) -> Check:
    if isinstance(probe, WorkbenchError):
        return Check("torch", "problem", probe.message, "Nothing can be loaded or trained.", probe.cure)
    return Check("torch", "ok", f"{probe.version}, {probe.threads} CPU threads")


def _cuda(probe: _TorchProbe | WorkbenchError, *, has_gpu: bool) -> Check:
    if isinstance(probe, WorkbenchError):
        return Check("CUDA", "problem", "unknown, because torch does not start", "No GPU can be used.", probe.cure)
    devices = probe.devices
    if devices:
        names = "; ".join(f"{one.name} (sm_{one.capability[0]}{one.capability[1]})" for one in devices)
        found = f"{probe.cuda}; {names}"
        if any(one.capability[0] < 8 for one in devices):
            return Check(
                "CUDA",
                "warning",
                found,
                "This GPU has no bfloat16 support: compute_dtype auto uses float16.",
                "Nothing to fix. Lower the learning rate if the loss overflows.",
            )
        return Check("CUDA", "ok", found)
    slow = "Everything runs on the CPU, slowly."
    if probe.cuda is None:
        if has_gpu:
            cure = "Install a CUDA build: https://pytorch.org/get-started shows the command for your driver."
            return Check("CUDA", "problem", "this torch is a CPU build, though there is a GPU", slow, cure)
        return Check(
            "CUDA", "warning", "none: this torch is a CPU build", slow, "Nothing to fix on a machine without a GPU."
        )
    level: Literal["warning", "problem"] = "problem" if has_gpu else "warning"
    return Check("CUDA", level, f"{probe.cuda}, not usable: {probe.reason}", slow, probe.cure)


def _bitsandbytes(probe: _BitsandbytesProbe | WorkbenchError) -> Check:
    if isinstance(probe, WorkbenchError):
        return Check(
            "bitsandbytes",
            "problem",
            probe.message,
            "No 4-bit or 8-bit base (QLoRA); only quantization.method none works.",
            probe.cure or "Reinstall bitsandbytes for this machine.",
        )
    found = f"{probe.version}: nf4 and int8 work on {probe.device}"
    if probe.error > 0.1:
        return Check(
            "bitsandbytes",
            "problem",
            f"{probe.version}: nf4 on {probe.device} gives wrong results (mean error {probe.error:.2f})",
            "A 4-bit base would produce nonsense.",
            "`pip install -U bitsandbytes`, or set quantization.method to none.",
        )
    return Check("bitsandbytes", "ok", found)


def _libraries() -> Check:
    names = ("transformers", "peft", "trl", "accelerate", "datasets", "safetensors", "textual")
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check(
            "Libraries",
            "problem",
            f"missing: {', '.join(missing)}",
            "Nothing can be trained.",
            "Install loraworkbench again.",
        )
    return Check("Libraries", "ok", ", ".join(versions))


def _reporters() -> Check:
    installed = [name for name in REPORTERS if is_installed(name)]
    return _optional("Reporters", installed, [name for name in REPORTERS if name not in installed])


def _compiler() -> Check:
    """Only torch.compile needs a compiler, on CPU and GPU; without one a run warns and trains uncompiled."""
    names = [os.environ.get("CXX"), "g++", "clang++"]
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    return Check("C++ compiler", "ok", compiler or "none, so training.torch_compile has no effect (install g++)")


def _kernels() -> Check:
    installed, missing = [], []
    for package, _ in PACKAGES.values():
        try:
            installed.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    return _optional("Kernels", installed, missing)


def _optional(name: str, installed: Sequence[str], missing: Sequence[str]) -> Check:
    """Optional packages: never a problem here; a recipe that needs a missing one reports it."""
    hint = f"not installed: {', '.join(missing)} (`pip install {' '.join(missing)}`)" if missing else ""
    return Check(name, "ok", "; ".join(filter(None, (", ".join(installed), hint))))


def _token() -> Check:
    if place := token_place():
        return Check("Hub token", "ok", f"present in {place}")
    return Check(
        "Hub token",
        "warning",
        "none",
        "Gated and private models (Llama, Gemma, …) cannot be downloaded; all others can.",
        "Run `hf auth login`, or set HF_TOKEN before the engine starts.",
    )


def _hub() -> Check:
    reason = unreachable_reason(_PROBE_HUB_SECONDS)
    if reason is None:
        return Check("Hub", "ok", f"{endpoint()} answers")
    return Check(
        "Hub",
        "warning",
        f"{endpoint()} is not used: {reason}" if is_offline() else f"{endpoint()} cannot be reached: {reason}",
        "Only models on this machine can be used; the default model is still available from the package index.",
        "Unset HF_HUB_OFFLINE."
        if is_offline()
        else "Check network and proxy (HTTPS_PROXY), or set HF_ENDPOINT to a mirror; folders and GGUF files work.",
    )


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())


def _device(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _probe(function: str, result: type[Probe]) -> Probe | WorkbenchError:
    """Run a probe in a separate process; its failure is a result too."""
    end = time.monotonic() + _PROBE_SECONDS
    is_late: Callable[[], bool] = lambda: time.monotonic() > end  # noqa: E731
    try:
        answer: Probe = run_in_child(
            f"{__name__}:{function}", {}, lambda progress: None, is_late, result=result, what="the check"
        )
    except WorkbenchError as error:
        if error.kind == "cancelled":
            return WorkbenchError(f"no answer within {_PROBE_SECONDS:.0f} s", "Check the machine's load.")
        return error
    return answer


def _probe_torch() -> dict[str, object]:
    """Ask torch for the devices it can use; runs in a separate process."""
    import torch

    from workbench.failures.diagnose import diagnose

    reason = cure = ""
    devices: list[_CudaDevice] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            torch.ones(8, device=f"cuda:{index}").sum().item()
            capability = torch.cuda.get_device_capability(index)
            devices.append(_CudaDevice(torch.cuda.get_device_name(index), list(capability)))
    elif torch.version.cuda:
        try:
            torch.cuda.init()
        except RuntimeError as error:
            known = diagnose(error)
            reason, cure = known.message, known.cure
    threads = torch.get_num_threads()
    return asdict(_TorchProbe(str(torch.__version__), threads, torch.version.cuda, devices, reason, cure))


def _probe_bitsandbytes() -> dict[str, object]:
    """Quantize a matrix to nf4 and int8 and measure nf4's error; runs in a separate process.

    For standard normal values nf4's mean error is 0.073 (measured, blocks of 64, double quantization).
    """
    import bitsandbytes
    import torch
    from bitsandbytes import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    matrix = torch.randn(256, 256).to(device)
    packed, state = functional.quantize_4bit(matrix, quant_type="nf4", compress_statistics=True)
    error = (functional.dequantize_4bit(packed, state) - matrix).abs().mean().item()
    functional.int8_vectorwise_quant(matrix.half())
    return asdict(_BitsandbytesProbe(bitsandbytes.__version__, device, error))
