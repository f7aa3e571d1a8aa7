"""The options of ``loraworkbench train`` and ``queue`` for several GPUs and several machines."""

import re
from pathlib import Path
from typing import Annotated

import typer

from workbench.commands.common import console, print_json
from workbench.engine.client.requests import anchored
from workbench.errors import WorkbenchError
from workbench.machine.gpu import gpus_now
from workbench.planning.cluster import write_cluster_files
from workbench.planning.launch import Launch
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

LauncherOption = Annotated[
    str | None,
    typer.Option(
        metavar="accelerate",
        help="Train in several processes launched by accelerate. Implied by the other multi-GPU options.",
    ),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--num-processes",
        min=1,
        help="Total processes, one per GPU. The effective batch grows with their number.",
    ),
]
GpusOption = Annotated[
    str | None,
    typer.Option(metavar="0,1", help="GPU indices as shown by nvidia-smi."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config-file",
        help="An accelerate configuration to use instead of the generated one, such as one with DeepSpeed.",
    ),
]
MachinesOption = Annotated[int | None, typer.Option("--num-machines", min=2, help="Number of machines. Needs --write.")]
WriteOption = Annotated[
    Path | None,
    typer.Option(
        "--write",
        metavar="DIR",
        help="Do not start: write configuration, per-machine command and Slurm script to a new folder "
        "visible to all machines.",
    ),
]


def launch_of(
    launcher: str | None, processes: int | None, gpus: str | None, config: Path | None, machines: int | None
) -> Launch | None:
    """The launch of one machine from these options; None if none is given.

    Raises:
        WorkbenchError: an option is not valid, or they contradict each other.
    """
    if launcher not in (None, "accelerate"):
        raise _refused(f"Unknown launcher {launcher}.", "Use --launcher accelerate.")
    if (launcher, processes, gpus, config, machines) == (None,) * 5:
        return None
    devices = _devices(gpus)
    share = processes
    if processes is not None and machines is not None:
        if processes % machines:
            raise _refused(
                f"{processes} processes cannot be split evenly across {machines} machines.",
                "--num-processes counts all machines; give a multiple of --num-machines.",
            )
        share = processes // machines
    if share is None:
        share = len(devices) or len(gpus_now())
    if not share:
        raise _refused("The number of processes is unknown: this machine has no GPU.", "Add --num-processes N.")
    launch = Launch(processes=share, devices=devices, config_file=str(config.absolute()) if config else "")
    launch.check()
    return launch


def write_for_cluster(
    home: Home, recipe: Recipe, launch: Launch | None, machines: int | None, folder: Path, *, as_json: bool
) -> None:
    """Write the files for a run on several machines, and print how to use them.

    Raises:
        WorkbenchError: options are missing, or the folder is not empty.
    """
    if launch is None or machines is None:
        raise _refused(
            "--write works only for a run on several machines.", "Add --num-machines M and --num-processes N (total)."
        )
    files = write_cluster_files(home, folder.absolute(), anchored(recipe), launch, machines)
    if as_json:
        print_json({"folder": str(folder.absolute()), **{name: str(path) for name, path in vars(files).items()}})
        return
    for line in (
        f"Nothing was started. The run folder is {folder}; every machine must see it, the model "
        "and the data at the same path.",
        f"With Slurm:     sbatch {files.slurm}",
        f"Without:        {files.node} NUMBER ADDRESS   on each machine (NUMBER from 0, ADDRESS of machine 0)",
        f"Watch it:       loraworkbench attach {folder.absolute()}",
    ):
        console.print(line, markup=False, soft_wrap=True)


def _devices(gpus: str | None) -> tuple[int, ...]:
    if gpus is None:
        return ()
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", gpus):
        raise _refused("--gpus takes comma-separated numbers.", "For example --gpus 0,1. nvidia-smi lists the GPUs.")
    devices = tuple(map(int, gpus.split(",")))
    present = {gpu.index for gpu in gpus_now()}
    if missing := [device for device in devices if device not in present]:
        have = ", ".join(map(str, sorted(present))) or "none"
        raise _refused(f"This machine has no GPU {missing[0]}.", f"Available: {have}.")
    return devices


def _refused(message: str, cure: str) -> WorkbenchError:
    return WorkbenchError(message, cure, kind="launch")
