"""Runs as jobs of Slurm: the script, submitting it, its state, canceling it, and why it ended.

Only Slurm's own commands are called. The job trains in the run's folder, which the job's machine must see at the same
path, as this one sees its journal there.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose_exit
from workbench.planning.cluster import node_script
from workbench.planning.launch import Launch, write_config
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

_FILE = "slurm.json"
_SCRIPT = "job.slurm"
_SECONDS = 60.0
# What a #SBATCH line may hold; a space would begin another word.
_VALUE = re.compile(r"[\w.,:;=/@%+()\[\]*&|!~-]+")
_KEY = re.compile(r"[a-z][a-z-]*")
_RUNNING = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "SUSPENDED", "RESIZING"}
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}


@dataclass(frozen=True)
class JobState:
    """What Slurm says about a job.

    Attributes:
        name: Slurm's name of the state, such as ``PENDING``; empty if Slurm no longer knows the job.
        reason: why it waits or ended, in Slurm's words; may be empty.
        exit_code: of the script; negative for a signal, None if unknown.
    """

    name: str
    reason: str = ""
    exit_code: int | None = None

    @property
    def is_waiting(self) -> bool:
        return self.name in _WAITING

    @property
    def is_over(self) -> bool:
        return self.name not in _WAITING | _RUNNING


@dataclass(frozen=True)
class SlurmJob:
    """A submitted job. ``cluster`` is empty for the only one."""

    id: str
    cluster: str = ""

    @classmethod
    def of(cls, run: RunFolder) -> "SlurmJob | None":
        """The job that trains a run, or trained it last; None if it was none."""
        try:
            return cls(**json.loads((run.path / _FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @classmethod
    def submit(cls, run: RunFolder) -> Self:
        """Submit the script in the run's folder.

        Raises:
            WorkbenchError: there is no ``sbatch`` here, or Slurm refuses the job.
        """
        answer = _call(["sbatch", "--parsable", str(run.path / _SCRIPT)])
        number, _, cluster = answer.strip().splitlines()[-1].partition(";")
        if not number.isdigit():
            raise WorkbenchError(f"sbatch answered {answer.strip()[:200]!r}, which names no job.", kind="slurm")
        job = cls(number, cluster)
        (run.path / _FILE).write_text(json.dumps(asdict(job)), encoding="utf-8")
        return job

    def state(self) -> JobState:
        """What Slurm says now; takes some tenths of a second.

        Raises:
            WorkbenchError: Slurm does not answer.
        """
        with suppress(WorkbenchError):
            # Fails for a job that has ended some minutes ago.
            if line := _call(["squeue", *self._cluster, "-h", "-j", self.id, "-o", "%T|%r"]).strip():
                name, _, reason = line.splitlines()[0].partition("|")
                state = JobState(name, _meaningful(reason))
                if not state.is_over:
                    return state
        return self._ended_state()

    def cancel(self, *, save: bool) -> None:
        """End the job. ``save``: the run stops and is saved first, which takes as long as a micro-batch.

        Raises:
            WorkbenchError: Slurm refuses it.
        """
        # Signals go to the processes of the job's steps; a job that waits has none.
        signal = ["--signal=TERM"] if save and not self.state().is_waiting else []
        _call(["scancel", *self._cluster, *signal, self.id])

    def _ended_state(self) -> JobState:
        with suppress(WorkbenchError):
            fields = ["sacct", *self._cluster, "-j", self.id, "-X", "-n", "-P", "-o", "State,ExitCode,Reason"]
            if line := _call(fields).strip():
                name, code, reason = (*line.splitlines()[-1].split("|"), "", "")[:3]
                # As in "CANCELLED by 1000".
                return JobState(name.split()[0], _meaningful(reason), _exit_code(code))
        # Without accounting the controller still knows it for some minutes.
        with suppress(WorkbenchError):
            shown = _call(["scontrol", *self._cluster, "show", "job", self.id, "-o"])
            facts = dict(word.split("=", 1) for word in shown.split() if "=" in word)
            return JobState(
                facts.get("JobState", ""), _meaningful(facts.get("Reason", "")), _exit_code(facts.get("ExitCode", ""))
            )
        return JobState("")

    @property
    def _cluster(self) -> list[str]:
        return ["-M", self.cluster] if self.cluster else []


def write_script(
    home: Home, run: RunFolder, recipe: Recipe, launch: Launch | None, options: Mapping[str, str], machines: int = 1
) -> Path:
    """Write the job's script into the run's folder.

    Args:
        launch: the processes of one machine; None for one process.
        options: of ``sbatch``, by their long names, such as ``{"partition": "gpu", "time": "12:00:00"}``.

    Raises:
        WorkbenchError: an option is not valid, or the folder cannot be written.
    """
    lines = {
        "job-name": recipe.output.name,
        "nodes": str(machines),
        "ntasks-per-node": "1",
        "chdir": str(run.path),
        "output": str(run.log),
        "open-mode": "append",
        # At its time limit, or preempted, the run stops and is saved; requeued, it resumes.
        "signal": "TERM@120",
        **options,
    }
    head = [_option(key, value) for key, value in lines.items()]
    if machines == 1 and (launch is None or not launch.needs_launcher):
        worker = ["-m", "workbench.engine.distributed.worker", "--home", str(home.root), "--resume", str(run.path)]
        command = f"exec srun --kill-on-bad-exit=1 {shlex.join([sys.executable, '-P', *worker])}"
    else:
        launch = launch or Launch()
        node = node_script(home, run, write_config(launch, recipe, run.path, machines), launch, machines)
        command = (
            'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
            f"export first node={shlex.quote(str(node))}\n"
            """exec srun --kill-on-bad-exit=1 bash -c 'exec "$node" "$SLURM_NODEID" "$first"'"""
        )
    environment = "export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_TELEMETRY=1"
    script = run.path / _SCRIPT
    try:
        script.write_text("\n".join(["#!/bin/bash", *head, "set -euo pipefail", environment, command, ""]), "utf-8")
    except OSError as error:
        raise WorkbenchError(f"Cannot write {script}: {error.strerror or error}.", kind="disk") from None
    return script


def options_of(assignments: Sequence[str]) -> dict[str, str]:
    """Options of ``sbatch`` as typed: ``mem=64G``.

    Raises:
        WorkbenchError: one is not of this form.
    """
    found = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise WorkbenchError(f"{text} is not KEY=VALUE.", "For example --sbatch mem=64G.", kind="slurm")
        _option(key, value)
        found[key] = value
    return found


def check_installed() -> None:
    """Check that jobs can be submitted from here.

    Raises:
        WorkbenchError: ``sbatch`` is missing.
    """
    if shutil.which("sbatch") is None:
        raise WorkbenchError(
            "This machine has no sbatch, so it cannot submit to Slurm.",
            "Log in to a machine of the cluster, such as with --host; or train here without --slurm.",
            kind="slurm",
        )


def why_it_ended(job: SlurmJob, state: JobState, run: RunFolder, log: str) -> WorkbenchError:
    """Explain the end of a job whose run did not record one.

    Args:
        log: the last lines of the run's log.
    """
    name, resume = f"Slurm job {job.id}", f"Resume:  loraworkbench train --resume {run.id} --slurm"
    if _killed_for_memory(state, log):
        return WorkbenchError(
            f"{name} was killed: it used more memory than it asked for.",
            f"Ask for more, such as --sbatch mem=64G, or use a smaller batch. {resume}",
            kind="out_of_memory",
        )
    match state.name:
        case "TIMEOUT" | "DEADLINE":
            message = f"{name} reached its time limit."
            return WorkbenchError(message, f"{resume} --time 24:00:00", kind="time_limit")
        case "NODE_FAIL" | "BOOT_FAIL":
            return WorkbenchError(f"The machine of {name} failed ({state.name}).", resume, kind="node_failure")
        case "PREEMPTED":
            return WorkbenchError(f"{name} was preempted by another job.", resume, kind="preempted")
        case "CANCELLED":
            return WorkbenchError(f"{name} was canceled.", resume, kind="canceled")
        case "":
            return WorkbenchError(
                f"Slurm no longer knows job {job.id}, and the run's journal does not say why it ended.",
                f"The log is {run.log}. {resume}",
                kind="ended",
            )
    code = state.exit_code if state.exit_code is not None else 1
    died = diagnose_exit(code, log, what=name)
    reason = f" Slurm's reason: {state.reason}." if state.reason else ""
    return WorkbenchError(f"{died.message} ({state.name}){reason}", f"{died.cure} {resume}", kind=died.kind)


def _killed_for_memory(state: JobState, log: str) -> bool:
    # Without accounting the state may be FAILED, while slurmstepd has written the cause into the output.
    return state.name == "OUT_OF_MEMORY" or (state.is_over and "oom-kill event" in log) or "oom_kill" in log


def _option(key: str, value: str) -> str:
    if not _KEY.fullmatch(key):
        raise WorkbenchError(
            f"{key!r} is not an option of sbatch.", "Give its long name, such as --sbatch mem=64G.", kind="slurm"
        )
    # Slurm reads quoted values with spaces, but a line break would start another line of the script.
    if not _VALUE.fullmatch(value) and ('"' in value or not value.isprintable() or not value):
        raise WorkbenchError(f"{value!r} is not a value for --{key}.", kind="slurm")
    return f"#SBATCH --{key}={value}" if _VALUE.fullmatch(value) else f'#SBATCH --{key}="{value}"'


def _meaningful(reason: str) -> str:
    return "" if reason in ("None", "(null)", "N/A") else reason


def _exit_code(text: str) -> int | None:
    """``code:signal`` as Slurm writes it, as one number."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        return None
    return -int(match[2]) if int(match[2]) else int(match[1])


def _call(command: list[str]) -> str:
    name = command[0]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except FileNotFoundError:
        check_installed()
        raise WorkbenchError(f"This machine has no {name}.", "Install Slurm's commands.", kind="slurm") from None
    except subprocess.TimeoutExpired:
        raise WorkbenchError(
            f"{name} did not answer within {_SECONDS:.0f} s.", "See `sinfo` for the cluster's state.", kind="slurm"
        ) from None
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise WorkbenchError(f"{name}: {words[:500]}", _cure(words), kind="slurm")
    return done.stdout


def _cure(words: str) -> str:
    lowered = words.lower()
    if "partition" in lowered:
        return "Choose one that `sinfo` lists: --partition NAME."
    if "gres" in lowered or "generic resource" in lowered:
        return "Name the cluster's GPUs, such as --gres gpu:a100:1, or --gres none for a run without one."
    if "account" in lowered or "qos" in lowered:
        return "Add --sbatch account=NAME, or qos=NAME."
    if "time limit" in lowered:
        return "Ask for less: --time 4:00:00."
    return "`sinfo` shows the cluster's state."
