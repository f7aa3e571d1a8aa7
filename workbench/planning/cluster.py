"""Writes the files to train on several machines: accelerate's configuration, a script per machine, a Slurm script.

It starts nothing. The folder becomes a normal run folder, which all machines must see at the same path.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch, write_config
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

PORT = 29500


@dataclass(frozen=True)
class ClusterFiles:
    """The written files: accelerate's configuration, the script each machine runs, and the Slurm script."""

    config: Path
    node: Path
    slurm: Path


def write_cluster_files(home: Home, folder: Path, recipe: Recipe, launch: Launch, machines: int) -> ClusterFiles:
    """Write recipe, configuration and scripts into a new folder, which becomes the run folder.

    Args:
        recipe: with absolute paths that are valid on every machine.
        launch: the processes of one machine; all machines have the same number.

    Raises:
        WorkbenchError: the folder is not empty or cannot be written.
    """
    launch.check()
    run = RunFolder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise WorkbenchError(
                f"{folder} is not empty.", "Give a new folder: it becomes the run folder.", kind="launch"
            )
        run.recipe_file.write_text(to_yaml(recipe), encoding="utf-8")
        config = write_config(launch, recipe, folder, machines)
        files = ClusterFiles(config, node_script(home, run, config, launch, machines), folder / "job.slurm")
        files.slurm.write_text(_slurm(recipe, files.node, launch, machines), encoding="utf-8")
        files.slurm.chmod(0o700)
    except OSError as error:
        raise WorkbenchError(
            f"Cannot write into {folder}: {error.strerror or error}.", "Give another folder.", kind="disk"
        ) from None
    return files


def node_script(home: Home, run: RunFolder, config: Path, launch: Launch, machines: int) -> Path:
    """Write the script that each machine runs into the run's folder, and return its path.

    Args:
        config: accelerate's configuration.

    Raises:
        OSError: a file cannot be written.
    """
    node = run.path / "node.sh"
    node.write_text(_node(home, run, config, launch, machines), encoding="utf-8")
    node.chmod(0o700)
    return node


def _node(home: Home, run: RunFolder, config: Path, launch: Launch, machines: int) -> str:
    # -P: do not import from the current folder, which may contain a torch.py.
    command = [sys.executable, "-P", "-m", "accelerate.commands.launch", "--config_file", str(config)]
    if launch.config_file:
        command += ["--num_machines", str(machines), "--num_processes", str(launch.processes * machines)]
    worker = ["-m", "workbench.engine.distributed.worker", "--home", str(home.root), "--resume", str(run.path)]
    return f"""#!/bin/bash
# One machine's part of a run on {machines}:  node.sh NUMBER ADDRESS
# NUMBER counts the machines from 0, ADDRESS is the address of machine 0. Run it on every machine; port {PORT} must be
# open between them. When restarted, it resumes from the last checkpoint. SIGTERM stops the run and saves it.
set -euo pipefail
export PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_TELEMETRY=1
exec {shlex.join(command)} \\
    --machine_rank "$1" --main_process_ip "$2" --main_process_port "${{PORT:-{PORT}}}" \\
    {shlex.join(worker)}
"""


def _slurm(recipe: Recipe, node: Path, launch: Launch, machines: int) -> str:
    return f"""#!/bin/bash
# sbatch {shlex.quote(node.with_name("job.slurm").name)}
# Add what your cluster requires: partition, account, memory, modules.
#SBATCH --job-name={recipe.output.name}
#SBATCH --nodes={machines}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={launch.processes}
#SBATCH --time=24:00:00
# A preempted job, or one at its time limit, stops and saves first. It resumes when it is started again.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export first node={shlex.quote(str(node))}
exec srun --kill-on-bad-exit=1 bash -c 'exec "$node" "$SLURM_NODEID" "$first"'
"""
