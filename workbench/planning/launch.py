"""Starts a run in several processes with ``accelerate launch``, and writes the configuration for it."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import WorkbenchError
from workbench.machine.gpu import GpuSample
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

_FILE = "launch.json"
_CONFIG = "accelerate.yaml"
# The rest is for the adapter, its gradients, one unsharded layer and the activations of the smallest batch.
_SHARE_FOR_BASE = 0.85
# Characters of a MIG instance's UUID that are shown.
_MIG_NAME = 12
# accelerate's distributed types in which every process holds the whole base.
_UNSHARDED_TYPES = ("NO", "MULTI_GPU", "MULTI_CPU")


class Launch(BaseModel):
    """The processes that train a run.

    Attributes:
        processes: how many on this machine, one per GPU; without GPUs they share the processor.
        devices: the GPUs to use, numbered as by nvidia-smi, or the UUID of one MIG instance; empty for the first ones.
        sharded: shard the frozen base across the GPUs (FSDP), because it does not fit on one.
        config_file: the user's accelerate configuration, used instead of a generated one, for example for DeepSpeed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    processes: int = Field(default=1, ge=1, le=4096)
    devices: tuple[int | str, ...] = ()
    sharded: bool = False
    config_file: str = ""

    @classmethod
    def on(cls, devices: Sequence[int | str]) -> "Launch":
        """One process on each of these GPUs."""
        return cls(processes=len(devices), devices=tuple(devices))

    @property
    def needs_launcher(self) -> bool:
        """Whether the run must be launched by accelerate instead of training in the engine's process."""
        return self.processes > 1 or bool(self.devices or self.config_file or self.sharded)

    @property
    def may_be_sharded(self) -> bool:
        """Whether the base is sharded, or may be by the user's accelerate configuration."""
        if not self.config_file:
            return self.sharded
        try:
            return read_config(Path(self.config_file))["distributed_type"] not in _UNSHARDED_TYPES
        except WorkbenchError:  # reported when the run is started
            return True

    @property
    def text(self) -> str:
        """``GPUs 0, 3``, or ``2 processes`` if no GPUs were chosen."""
        if not self.devices:
            return f"{self.processes} process{'' if self.processes == 1 else 'es'}"
        return f"GPU{'' if len(self.devices) == 1 else 's'} {self.device_names}"

    @property
    def device_names(self) -> str:
        """``0, 3``; the UUID of a MIG instance is shortened."""
        return ", ".join(str(device)[:_MIG_NAME] for device in self.devices)

    def check(self) -> None:
        """Check that the processes can be started.

        Raises:
            WorkbenchError: the numbers of GPUs and processes differ, or the configuration cannot be used here.
        """
        numbers = [device for device in self.devices if isinstance(device, int)]
        if len(self.devices) > 1 and len(numbers) < len(self.devices):
            raise WorkbenchError(
                "A MIG instance cannot train together with another one or with a GPU.",
                "Choose one MIG instance, or whole GPUs only.",
                kind="launch",
            )
        if self.devices and (len(set(self.devices)) != self.processes or min(numbers, default=0) < 0):
            raise WorkbenchError(
                f"{self.processes} processes cannot share the GPUs {self.device_names}.",
                "Give one GPU per process, each once.",
                kind="launch",
            )
        if self.config_file:
            check_config(Path(self.config_file))

    def save(self, run: RunFolder) -> None:
        """Save it in the run folder, so that the run resumes with the same processes."""
        (run.path / _FILE).write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def of(cls, run: RunFolder) -> "Launch | None":
        """Read how a run was launched; None if the engine's process trains it.

        Raises:
            WorkbenchError: the file is damaged.
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
    """The GPUs that a run uses, one per process; without a launch, the first."""
    if launch is None:
        return tuple(gpus[:1])
    if launch.devices:
        return tuple(gpu for gpu in gpus if gpu.device in launch.devices)
    return tuple(gpus[: launch.processes])


def largest_base(launch: Launch | None, gpus: Sequence[GpuSample]) -> int | None:
    """Bytes of the largest base that is not sharded; a larger one is sharded across the run's GPUs (FSDP).

    Returns:
        None if the base is never sharded: on one GPU, with the user's configuration, or if the GPUs' sizes are unknown.
    """
    if launch is None or launch.processes < 2 or launch.config_file:
        return None
    sizes = [gpu.total_bytes for gpu in gpus_of(launch, gpus) if gpu.total_bytes]
    return int(_SHARE_FOR_BASE * min(sizes)) if sizes else None


def read_config(file: Path) -> dict[str, object]:
    """Read an accelerate configuration.

    Raises:
        WorkbenchError: the file is not one.
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
    """Check that accelerate can use a configuration on this machine.

    Raises:
        WorkbenchError: the file is not one, or needs a library that is not installed.
    """
    if read_config(file)["distributed_type"] == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise WorkbenchError(
            f"{file} needs DeepSpeed, which is not installed.",
            "Run `pip install deepspeed`, or omit --config-file: several GPUs do not need DeepSpeed.",
            kind="launch",
        )


def accelerate_config(launch: Launch, recipe: Recipe, machines: int = 1) -> Mapping[str, object]:
    """The accelerate configuration of a launch. On one machine any free port is used."""
    config: dict[str, object] = {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "distributed_type": "MULTI_GPU",
        "downcast_bf16": "no",
        "enable_cpu_affinity": False,
        "gpu_ids": ",".join(map(str, launch.devices)) or "all",
        "machine_rank": 0,
        "main_process_port": 29500 if machines > 1 else 0,
        "main_training_function": "main",
        # The trainer sets the compute dtype itself.
        "mixed_precision": "no",
        "num_machines": machines,
        "num_processes": launch.processes * machines,
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
    }
    if launch.sharded:
        config |= {"distributed_type": "FSDP", "fsdp_config": dict(_fsdp(recipe))}
    elif launch.processes * machines == 1:
        config |= {"distributed_type": "NO"}
    return config


def _fsdp(recipe: Recipe) -> Mapping[str, object]:
    """FSDP settings that shard by decoder layer, as in PEFT's guide to FSDP with QLoRA.

    FSDP does not shard integers, so the worker loads a 4-bit base with a float storage type. The adapter is saved
    unsharded.
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
        # With a quantized base, weights and adapters of a layer share a storage type and thus a flat tensor.
        "fsdp_use_orig_params": recipe.quantization.method == "none",
    }


def write_config(launch: Launch, recipe: Recipe, folder: Path, machines: int = 1) -> Path:
    """Write the configuration of a launch into a folder and return it; the user's configuration stays where it is."""
    if launch.config_file:
        return Path(launch.config_file)
    file = folder / _CONFIG
    file.write_text(yaml.safe_dump(dict(accelerate_config(launch, recipe, machines)), sort_keys=True), encoding="utf-8")
    return file


def launch_command(
    launch: Launch, config: Path, home: Home, run: RunFolder, *, engine: Path, resume: bool
) -> list[str]:
    """The command line that starts the processes on this machine."""
    # -P: do not import from the current folder, which may contain a torch.py.
    command = [sys.executable, "-P", "-m", "accelerate.commands.launch", "--config_file", str(config)]
    if launch.config_file:
        command += ["--num_processes", str(launch.processes)]
        if launch.devices:
            command += ["--gpu_ids", ",".join(map(str, launch.devices))]
    command += ["-m", "workbench.engine.distributed.worker", "--home", str(home.root), "--engine", str(engine)]
    return [*command, *(["--resume"] if resume else []), str(run.path)]


def launch_environment() -> dict[str, str]:
    """The environment of these processes: GPUs numbered as by nvidia-smi, no imports from the current folder."""
    return {
        **os.environ,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
