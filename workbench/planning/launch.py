"""How a run in several processes is started: by ``accelerate launch``, from a configuration written for it."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import WorkbenchError
from workbench.machine.gpu import GpuSample
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

_FILE = "launch.json"
_CONFIG = "accelerate.yaml"
# The rest is for the adapter, its gradients, one layer unsharded and the activations of the smallest batch.
_SHARE_FOR_BASE = 0.85
# With any other of accelerate's kinds of run, no process need hold all of the base.
_WHOLE_IN_EACH = ("NO", "MULTI_GPU", "MULTI_CPU")


class Launch(BaseModel):
    """The processes of a run.

    Attributes:
        processes: how many on this machine, one for each GPU; on a machine without one they share the processor.
        devices: the GPUs to use, as nvidia-smi numbers them; empty for the first ones.
        sharded: spread the frozen base over the GPUs (FSDP), because one cannot hold it.
        config_file: the user's own configuration of accelerate, for instance with DeepSpeed, in the place of ours.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    processes: int = Field(default=1, ge=1, le=4096)
    devices: tuple[int, ...] = ()
    sharded: bool = False
    config_file: str = ""

    @classmethod
    def on(cls, devices: Sequence[int]) -> "Launch":
        """One process on each of these GPUs."""
        return cls(processes=len(devices), devices=tuple(devices))

    @property
    def needs_launcher(self) -> bool:
        """Whether the engine's own process will not do."""
        return self.processes > 1 or bool(self.devices or self.config_file or self.sharded)

    @property
    def is_spread(self) -> bool:
        """Whether the base is spread over the processes: it was said, or the user's own configuration may do so."""
        if not self.config_file:
            return self.sharded
        try:
            return read_config(Path(self.config_file))["distributed_type"] not in _WHOLE_IN_EACH
        except WorkbenchError:  # told when it is started
            return True

    @property
    def words(self) -> str:
        """``GPUs 0, 3``; where none was named, ``2 processes``."""
        if not self.devices:
            return f"{self.processes} process{'' if self.processes == 1 else 'es'}"
        return f"GPU{'' if len(self.devices) == 1 else 's'} {', '.join(map(str, self.devices))}"

    def check(self) -> None:
        """Refuse what cannot be started.

        Raises:
            WorkbenchError: GPUs and processes differ in number, or the configuration cannot be used here.
        """
        if self.devices and (len(set(self.devices)) != self.processes or min(self.devices) < 0):
            raise WorkbenchError(
                f"{self.processes} processes cannot share the GPUs {', '.join(map(str, self.devices))}.",
                "Give one GPU per process, each once.",
                kind="launch",
            )
        if self.config_file:
            check_config(Path(self.config_file))

    def save(self, run: RunFolder) -> None:
        """Keep it with the run, so that the run goes on in the same way."""
        (run.path / _FILE).write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def of(cls, run: RunFolder) -> "Launch | None":
        """How a run was started; None where the engine's own process trains it.

        Raises:
            WorkbenchError: the file that says so is damaged.
        """
        file = run.path / _FILE
        if not file.is_file():
            return None
        try:
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        except (ValidationError, ValueError, OSError):
            raise WorkbenchError(
                f"{file} does not record how many processes trained this run.",
                "Remove it to resume the run in one process, or give the number again.",
                kind="launch",
            ) from None


def gpus_of(launch: Launch | None, gpus: Sequence[GpuSample]) -> tuple[GpuSample, ...]:
    """Those of a machine's GPUs that a run takes, one for each process; without a launch, the first."""
    if launch is None:
        return tuple(gpus[:1])
    if launch.devices:
        return tuple(gpu for gpu in gpus if gpu.index in launch.devices)
    return tuple(gpus[: launch.processes])


def largest_base(launch: Launch | None, gpus: Sequence[GpuSample]) -> int | None:
    """Bytes of the largest base that each GPU of a run holds whole; a larger one is spread over them (FSDP).

    Returns:
        None where nothing is spread, however large: on one GPU, with a configuration of the user's own, and where no
        GPU tells its size.
    """
    if launch is None or launch.processes < 2 or launch.config_file:
        return None
    sizes = [gpu.total_bytes for gpu in gpus_of(launch, gpus) if gpu.total_bytes]
    return int(_SHARE_FOR_BASE * min(sizes)) if sizes else None


def read_config(file: Path) -> dict[str, Any]:
    """A configuration of accelerate.

    Raises:
        WorkbenchError: it is no such file.
    """
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WorkbenchError(
            f"{file} is not a readable accelerate configuration: {str(error).splitlines()[0]}.",
            "`accelerate config --config_file FILE` writes one.",
            kind="launch",
        ) from None
    if not isinstance(config, dict) or "distributed_type" not in config:
        raise WorkbenchError(
            f"{file} is not an accelerate configuration: it has no distributed_type.",
            "`accelerate config --config_file FILE` writes one.",
            kind="launch",
        )
    return config


def check_config(file: Path) -> None:
    """Whether accelerate can use a configuration on this machine.

    Raises:
        WorkbenchError: it is no such file, or it asks for a library that is not installed.
    """
    if read_config(file)["distributed_type"] == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise WorkbenchError(
            f"{file} needs DeepSpeed, which is not installed.",
            "Run `pip install deepspeed`, or omit --config-file: several GPUs do not need DeepSpeed.",
            kind="launch",
        )


def accelerate_config(launch: Launch, recipe: Recipe, machines: int = 1) -> dict[str, Any]:
    """The configuration, in accelerate's own words. On one machine the port is any free one."""
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "distributed_type": "MULTI_GPU",
        "downcast_bf16": "no",
        "enable_cpu_affinity": False,
        "gpu_ids": ",".join(map(str, launch.devices)) or "all",
        "machine_rank": 0,
        "main_process_port": 29500 if machines > 1 else 0,
        "main_training_function": "main",
        # The trainer says itself what it computes in.
        "mixed_precision": "no",
        "num_machines": machines,
        "num_processes": launch.processes * machines,
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
    }
    if launch.sharded:
        config |= {"distributed_type": "FSDP", "fsdp_config": _fsdp(recipe)}
    elif launch.processes * machines == 1:
        config |= {"distributed_type": "NO"}
    return config


def _fsdp(recipe: Recipe) -> dict[str, Any]:
    """Shards of whole decoder layers, as PEFT's guide to FSDP with QLoRA has them.

    A 4-bit base is stored in a float type then, since FSDP shards no integers: the worker loads it so. The adapter is
    saved whole.
    """
    return {
        "fsdp_version": 1,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_activation_checkpointing": False,
        "fsdp_backward_prefetch": "BACKWARD_PRE",
        "fsdp_cpu_ram_efficient_loading": True,
        "fsdp_forward_prefetch": False,
        "fsdp_offload_params": False,
        "fsdp_sharding_strategy": "FULL_SHARD",
        "fsdp_state_dict_type": "FULL_STATE_DICT",
        "fsdp_sync_module_states": True,
        # Quantised weights and adapters of one layer have one type of storage, so that they share a flat tensor.
        "fsdp_use_orig_params": recipe.quantization.method == "none",
    }


def write_config(launch: Launch, recipe: Recipe, folder: Path, machines: int = 1) -> Path:
    """Write the configuration of a launch into a folder; the user's own one is used where it lies."""
    if launch.config_file:
        return Path(launch.config_file)
    file = folder / _CONFIG
    file.write_text(yaml.safe_dump(accelerate_config(launch, recipe, machines), sort_keys=True), encoding="utf-8")
    return file


def launch_command(
    launch: Launch, config: Path, home: Home, run: RunFolder, *, engine: Path, resume: bool
) -> list[str]:
    """What starts the processes on this machine."""
    # -P: a file named torch.py in the present folder must not be imported.
    command = [sys.executable, "-P", "-m", "accelerate.commands.launch", "--config_file", str(config)]
    if launch.config_file:
        command += ["--num_processes", str(launch.processes)]
        if launch.devices:
            command += ["--gpu_ids", ",".join(map(str, launch.devices))]
    command += ["-m", "workbench.engine.distributed.worker", "--home", str(home.root), "--engine", str(engine)]
    return [*command, *(["--resume"] if resume else []), str(run.path)]


def launch_environment() -> dict[str, str]:
    """The variables of those processes: GPUs numbered as nvidia-smi does, nothing imported from the present folder."""
    return {
        **os.environ,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
