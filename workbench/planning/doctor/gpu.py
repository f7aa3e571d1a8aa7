"""Checks the GPU's driver, and what torch and bitsandbytes can do here."""

from typing import Literal

from workbench.errors import WorkbenchError
from workbench.machine.gpu import GpuSample, GpuSampler
from workbench.planning.doctor.check import Check
from workbench.planning.doctor.probes import BitsandbytesProbe, TorchProbe
from workbench.units import part_of


def driver(gpus: GpuSampler) -> Check:
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


def torch(probe: TorchProbe | WorkbenchError) -> Check:
    if isinstance(probe, WorkbenchError):
        return Check("torch", "problem", probe.message, "Nothing can be loaded or trained.", probe.cure)
    return Check("torch", "ok", f"{probe.version}, {probe.threads} CPU threads")


def cuda(probe: TorchProbe | WorkbenchError, *, has_gpu: bool) -> Check:
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


def bitsandbytes(probe: BitsandbytesProbe | WorkbenchError) -> Check:
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
