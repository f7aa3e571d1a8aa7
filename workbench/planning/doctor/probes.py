"""Asks torch and bitsandbytes what they can do here, each in a process of its own: it may crash in native code."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

from workbench.errors import WorkbenchError
from workbench.models.child import run_in_child

_PROBE_SECONDS = 180.0

Probe = TypeVar("Probe")


@dataclass(frozen=True)
class CudaDevice:
    name: str
    capability: list[int]


@dataclass(frozen=True)
class TorchProbe:
    """What torch reports about itself and the GPUs it can use."""

    version: str
    threads: int
    cuda: str | None
    devices: list[CudaDevice]
    reason: str
    cure: str


@dataclass(frozen=True)
class BitsandbytesProbe:
    """Where bitsandbytes quantizes, and the mean error of nf4."""

    version: str
    device: str
    error: float


def probe(function: Callable[[], object], result: type[Probe]) -> Probe | WorkbenchError:
    """Run a probe in a separate process; its failure is a result too.

    Args:
        function: a function of a module, which returns the fields of ``result``.
    """
    end = time.monotonic() + _PROBE_SECONDS
    is_late: Callable[[], bool] = lambda: time.monotonic() > end  # noqa: E731
    try:
        answer: Probe = run_in_child(
            f"{function.__module__}:{function.__name__}",
            {},
            lambda progress: None,
            is_late,
            result=result,
            what="the check",
        )
    except WorkbenchError as error:
        if error.kind == "cancelled":
            return WorkbenchError(f"no answer within {_PROBE_SECONDS:.0f} s", "Check the machine's load.")
        return error
    return answer


def probe_torch() -> dict[str, object]:
    """Ask torch for the devices it can use; runs in a separate process."""
    import torch

    from workbench.failures.diagnose import diagnose

    reason = cure = ""
    devices: list[CudaDevice] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            torch.ones(8, device=f"cuda:{index}").sum().item()
            capability = torch.cuda.get_device_capability(index)
            devices.append(CudaDevice(torch.cuda.get_device_name(index), list(capability)))
    elif torch.version.cuda:
        try:
            torch.cuda.init()
        except RuntimeError as error:
            known = diagnose(error)
            reason, cure = known.message, known.cure
    threads = torch.get_num_threads()
    return asdict(TorchProbe(str(torch.__version__), threads, torch.version.cuda, devices, reason, cure))


def probe_bitsandbytes() -> dict[str, object]:
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
    return asdict(BitsandbytesProbe(bitsandbytes.__version__, device, error))
