"""What Liger's kernels compute, in plain PyTorch: a stand-in where no kernel can run."""

from collections import Counter

import torch
from torch.nn import functional

from workbench.engine.kernels import liger
from workbench.engine.kernels.liger import FusedOperations
from workbench.engine.training import training


def rms_norm(states, weight, eps, offset, cast):
    wide = states.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    if cast == "llama":
        return (weight + offset) * wide.to(states.dtype)
    return (wide * (weight.float() + offset)).to(states.dtype)


class Counted:
    """The operations in plain PyTorch, and how often each was called."""

    def __init__(self):
        self.calls = Counter()

    def operations(self):
        return FusedOperations(
            self._counted("norm", rms_norm),
            self._counted("silu", lambda gate, up: functional.silu(gate) * up),
            self._counted("gelu", lambda gate, up: functional.gelu(gate, approximate="tanh") * up),
        )

    def _counted(self, name, operation):
        def call(*given):
            self.calls[name] += 1
            return operation(*given)

        return call


def as_if_installed(monkeypatch):
    """Let runs of this process compute with these operations; returns what counts them."""
    counted = Counted()
    monkeypatch.setattr(liger, "liger_operations", counted.operations)
    monkeypatch.setattr(training, "check_kernels", lambda kernels: None)
    monkeypatch.setattr(training, "check_device", lambda kernels: None)
    return counted
