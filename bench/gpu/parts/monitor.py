"""What the GPU sampler says against what PyTorch and nvidia-smi say of the same GPU."""

import os
import subprocess
from dataclasses import asdict

from bench.gpu.part import Work

_BYTES = 1 << 30


def measure(work: Work) -> None:
    from workbench.engine.model.libraries import import_libraries

    # As an engine does, and with the GPU numbering that this sets.
    import_libraries()
    import torch

    from workbench.engine.model.hardware import device_facts
    from workbench.machine.gpu import GpuSampler

    with GpuSampler() as sampler:
        work.note(driver=sampler.driver, before=[asdict(gpu) for gpu in sampler.sample()])
        before = sampler.sample()[0]
        block = torch.zeros(_BYTES, dtype=torch.uint8, device="cuda")
        for _ in range(20):
            torch.randn(4096, 4096, device="cuda") @ torch.randn(4096, 4096, device="cuda")
        torch.cuda.synchronize()
        after = sampler.sample()[0]
    facts, properties = device_facts(), torch.cuda.get_device_properties(torch.cuda.current_device())
    work.note(after=asdict(after), torch={"name": facts.name, "total": facts.total_bytes, "uuid": str(properties.uuid)})
    free, total = torch.cuda.mem_get_info()
    work.note(mem_get_info={"free": free, "total": total})
    grown = (after.used_bytes or 0) - (before.used_bytes or 0)
    work.check("the same name", after.name == facts.name, (after.name, facts.name))
    work.check("the same size", abs((after.total_bytes or 0) / total - 1) < 0.02, (after.total_bytes, total))
    work.check("free as CUDA says", abs((after.free_bytes or 0) - free) < 0.02 * total, (after.free_bytes, free))
    work.check("a gigabyte is seen", _BYTES <= grown < 3 * _BYTES, grown)
    own = [process.bytes for process in after.processes if process.pid == os.getpid()]
    # In a container the driver may know the process by another number, which the sampler cannot translate.
    work.note(own_process=own or "the driver does not list this process by its number here")
    work.check(
        "the same capability", after.compute_capability == torch.cuda.get_device_capability(), after.compute_capability
    )
    work.note(nvidia_smi=_nvidia_smi())
    del block
    work.verdict()


def _nvidia_smi() -> str:
    query = "index,uuid,name,memory.total,memory.used,memory.reserved,utilization.gpu,temperature.gpu,power.draw"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout + done.stderr
