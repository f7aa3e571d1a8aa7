"""The parts of the GPU bench, in the order in which they are run: what was newest and never run comes first."""

from collections.abc import Callable
from importlib.util import find_spec

from bench.gpu.part import Here, Part


def _on_gpu(here: Here) -> str:
    return "" if here.has_gpu else "CUDA only: there is no GPU here"


def _with(package: str) -> Callable[[Here], str]:
    def why_not(here: Here) -> str:
        return _on_gpu(here) or ("" if find_spec(package) else f"{package} is not installed")

    return why_not


PARTS = (
    Part("doctor", "loraworkbench doctor", "doctor", 40, 8),
    Part(
        "attention",
        "attention without padding against each record alone: outputs, losses and gradients",
        "attention", 45, 15,
    ),
    Part("waits", "where a training step makes the host wait for the GPU", "waits", 30, 12),
    Part("monitor", "the GPU sampler against NVML, nvidia-smi and PyTorch", "monitor", 25, 8, _on_gpu),
    Part(
        "run",
        "a run in the engine: pause, sample, release, resume, learning rate, checkpoint, finish",
        "live_run", 75, 25,
    ),
    Part("memory_limit", "a run whose memory really ends, and one where nothing fits", "memory_limit", 50, 15),
    Part("killed", "a killed run and an uninterrupted one: the same adapter, bit for bit", "killed", 80, 30),
    Part("offload", "checkpoints in host memory: losses, adapter, memory, time", "offload", 45, 15),
    Part("half", "float16 with autocast and its loss scaler against bfloat16", "half", 35, 12, _on_gpu),
    Part("peaks", "predicted against measured peaks of 25 runs", "peaks", 130, 30),
    Part("training", "training against a plain script, TRL, TRL without padding, and Unsloth", "against", 100, 40,
         settings={"bench": "train"}),
    Part("chat", "replies against model.generate", "against", 60, 20, settings={"bench": "chat"}),
    Part("liger", "Liger's kernels: losses, memory, time", "liger", 40, 15, _with("liger_kernel")),
    Part("tests", "the tests that are skipped without a GPU", "gpu_tests", 60, 15, _on_gpu),
    Part("serving", "eight requests at once against one by one", "against", 60, 20, settings={"bench": "serve"}),
    Part("flash_attn", "PyTorch's attention by rows against FlashAttention 2's", "flash", 20, 10, _with("flash_attn")),
    Part("compile", "compiled layers: losses and time", "against", 90, 45, settings={"bench": "compile"}),
)  # fmt: skip
"""Their limits add up to more than the budget of nine minutes; what they take is expected to be less."""
