"""Checks this machine for fine-tuning (Python, GPU, libraries, disk, hub): each finding with consequence and fix."""

from collections.abc import Iterator

from workbench.machine.gpu import GpuSampler
from workbench.planning.doctor import gpu, hub, libraries, system
from workbench.planning.doctor.check import Check
from workbench.planning.doctor.probes import BitsandbytesProbe, TorchProbe, probe, probe_bitsandbytes, probe_torch
from workbench.planning.doctor.torch_set import torch_build
from workbench.storage.paths import Home


def checks(home: Home) -> Iterator[Check]:
    """Run all checks one by one; takes about 10 s in total, mostly to import the libraries."""
    yield system.python()
    yield system.home(home)
    yield from system.disks(home)
    yield system.memory()
    yield system.terminal()
    with GpuSampler() as gpus:
        driver, version, has_gpu = gpu.driver(gpus), gpus.driver, bool(gpus.sample())
    yield driver
    torch = probe(probe_torch, TorchProbe)
    yield gpu.torch(torch)
    yield gpu.cuda(torch, has_gpu=has_gpu)
    if isinstance(torch, TorchProbe) and has_gpu:
        yield from torch_build(
            version or "", [(one.capability[0], one.capability[1]) for one in torch.devices], torch.cuda
        )
    yield gpu.bitsandbytes(probe(probe_bitsandbytes, BitsandbytesProbe))
    yield libraries.libraries()
    yield libraries.reporters()
    yield libraries.compiler()
    yield libraries.kernels()
    yield hub.token()
    yield hub.hub()
