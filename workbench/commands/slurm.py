"""``loraworkbench train --slurm``: submits a run as a job of Slurm, follows its journal, cancels and explains it."""

import asyncio
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from workbench.commands.common import console, errors, print_json, printable
from workbench.commands.output.follow import Form, follow
from workbench.engine.client.process import last_lines
from workbench.engine.client.requests import anchored
from workbench.engine.daemon.refusals import nothing_to_resume
from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.planning.slurm import JobState, SlurmJob, check_installed, options_of, why_it_ended, write_script
from workbench.recipe.schema import Recipe
from workbench.runs.events import RunEnded, RunError
from workbench.runs.folder import RunFolder, create_run, find_run, summarise
from workbench.runs.journal import JournalWriter
from workbench.runs.replay import Replay
from workbench.runs.summary import RunSummary
from workbench.storage import settings
from workbench.storage.paths import Home

SlurmFlag = Annotated[
    bool, typer.Option("--slurm", help="Submit the run to Slurm with sbatch, and follow it. The home must be shared.")
]
PartitionOption = Annotated[str | None, typer.Option(metavar="NAME", help="With --slurm: the partition.")]
TimeOption = Annotated[
    str | None, typer.Option("--time", metavar="LIMIT", help="With --slurm: time limit, such as 12:00:00.")
]
GresOption = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="With --slurm: GPUs of a machine, such as gpu:a100:2; none: no GPU."),
]
SbatchOption = Annotated[
    list[str] | None,
    typer.Option("--sbatch", metavar="KEY=VALUE", help="With --slurm: another option of sbatch, such as mem=64G."),
]

# Clusters do not like to be asked more often.
POLL_SECONDS = 5.0
# A shared file system may show the last lines of a journal this much later.
LATE_SECONDS = 10.0
_LOG_LINES = 40


@dataclass(frozen=True)
class SlurmRequest:
    """The options of a job, over those of the settings."""

    partition: str | None = None
    time: str | None = None
    gres: str | None = None
    more: tuple[str, ...] = ()

    @property
    def is_given(self) -> bool:
        """Whether any option was given."""
        return self != SlurmRequest()

    def options(self, home: Home, launch: Launch | None) -> dict[str, str]:
        """The options of sbatch, by their long names.

        Raises:
            WorkbenchError: one is not valid.
        """
        known = settings.read(home).slurm
        count = launch.processes if launch else 1
        gres = self.gres or known.gres or f"gpu:{count}"
        given = {
            "partition": self.partition or known.partition,
            "time": self.time or known.time,
            "gres": "" if gres == "none" else gres,
        }
        return {key: value for key, value in given.items() if value} | options_of((*known.sbatch, *self.more))


async def train_on_slurm(
    home: Home,
    start: Recipe | str,
    request: SlurmRequest,
    launch: Launch | None,
    form: Form,
    *,
    machines: int | None = None,
    detach: bool = False,
) -> tuple[RunFolder, RunSummary | None]:
    """Submit a run and follow it to its end; with ``detach`` only submit it.

    Args:
        start: the recipe of a new run, or the name of one to resume.

    Raises:
        WorkbenchError: Slurm refuses the job; the run fails, or the job ends.
    """
    check_installed()
    options = request.options(home, launch)
    if isinstance(start, Recipe):
        recipe = anchored(start)
        run, after = create_run(home, recipe), -1
    else:
        run = find_run(home, start)
        recipe = run.recipe()
        _refuse_live(run)
        after = Replay.of(run.journal).seq
    try:
        write_script(home, run, recipe, launch, options, machines or 1)
        job = await asyncio.to_thread(SlurmJob.submit, run)
    except WorkbenchError:
        if isinstance(start, Recipe):
            _remove_unsubmitted(home, run)
        raise
    if detach:
        _print_submitted(run, job, after, as_json=form == "json")
        return run, None
    errors.print(Text(f"{run.id} is Slurm job {job.id}."))
    with _CancelOnInterrupt(run, job):
        return run, await follow_job(run, job, form, after=after)


async def follow_job(
    run: RunFolder, job: SlurmJob, form: Form, *, after: int = -1, show_from: int | None = None
) -> RunSummary:
    """Follow the journal of a job's run to its end. A job that dies is recorded in it, with the reason.

    Args:
        after: number of the last event before the run was started or resumed.
        show_from: as of :func:`follow`; by default the one after that.

    Raises:
        WorkbenchError: the run failed, or the job ended before it.
    """
    watch, shown = _JobWatch(job), after + 1 if show_from is None else show_from
    while True:
        try:
            return await follow(run, watch.is_live, form, after=after, show_from=shown)
        except WorkbenchError as error:
            if error.kind not in ("run_lost", "engine_died"):
                raise
        state = await asyncio.to_thread(job.state)
        if state.is_over:
            log = last_lines(run.log, _LOG_LINES)
            died = why_it_ended(job, state, run, log)
            _record(run, died, log)
            raise died
        # Its process is gone, and Slurm has not noticed or starts it again.
        shown = Replay.of(run.journal).seq + 1
        await asyncio.sleep(1)


class _JobWatch:
    """Asks Slurm now and then whether a job is alive, and tells why it waits."""

    def __init__(self, job: SlurmJob) -> None:
        self._job = job
        self._asked = 0.0
        self._is_live = True
        self._said: tuple[str, str] | None = None
        self._over_since: float | None = None

    async def is_live(self) -> bool:
        now = time.monotonic()
        if self._asked and now - self._asked < POLL_SECONDS:
            return self._is_live
        state = await asyncio.to_thread(self._job.state)
        self._asked = time.monotonic()
        self._tell(state)
        if state.is_over:
            self._over_since = self._over_since or self._asked
        else:
            self._over_since = None
        self._is_live = self._over_since is None or self._asked - self._over_since < LATE_SECONDS
        return self._is_live

    def _tell(self, state: JobState) -> None:
        if state.is_waiting and self._said != (state.name, state.reason):
            why = f" ({state.reason})" if state.reason else ""
            errors.print(Text(printable(f"Slurm job {self._job.id}: {state.name}{why}"), "dim"))
        self._said = state.name, state.reason


class _CancelOnInterrupt:
    """While active, the first Ctrl-C stops the run and saves it; the next one cancels the job at once."""

    def __init__(self, run: RunFolder, job: SlurmJob) -> None:
        self._run = run
        self._job = job
        self._count = 0
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupted)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def _interrupted(self) -> None:
        self._count += 1
        if self._count == 1:
            errors.print(
                f"Stopping {self._run.id} and saving it … (Ctrl-C again cancels job {self._job.id} at once; "
                f"`loraworkbench train --resume {self._run.id} --slurm` resumes it)",
                markup=False,
                soft_wrap=True,
            )
        self._tasks.append(asyncio.ensure_future(self._cancel(save=self._count == 1)))

    async def _cancel(self, *, save: bool) -> None:
        try:
            await asyncio.to_thread(self._job.cancel, save=save)
        except WorkbenchError as error:
            errors.print(Text(printable(str(error)), "yellow"), soft_wrap=True)


def _remove_unsubmitted(home: Home, run: RunFolder) -> None:
    """Remove the folder of a new run whose job was refused, and the link to it if it is outside the home."""
    link = home.runs / run.id
    if link.is_symlink():
        link.unlink()
    shutil.rmtree(run.path, ignore_errors=True)


def _refuse_live(run: RunFolder) -> None:
    """Raise WorkbenchError if a run that is to be resumed is live, or has finished."""
    job, state = SlurmJob.of(run), summarise(run).state
    if state == "finished":
        raise nothing_to_resume(run, is_running=False)
    if state == "running" or (job is not None and not job.state().is_over):
        raise nothing_to_resume(run, is_running=True)


def _record(run: RunFolder, died: WorkbenchError, log: str) -> None:
    """Write the end into the journal, which nobody writes any more."""
    with JournalWriter(run.journal) as journal:
        journal.write(RunError.of(died, log))
        journal.write(RunEnded(reason="error", run=run.id))


def _print_submitted(run: RunFolder, job: SlurmJob, seq: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"run": run.id, "folder": str(run.path), "seq": seq, "job": job.id})
        return
    for line in (
        f"{run.id} is Slurm job {job.id}. Watch it:  loraworkbench attach {run.id}",
        f"Stop and save:  scancel --signal=TERM {job.id}",
    ):
        console.print(line, markup=False, soft_wrap=True)


def given_options(request: SlurmRequest, *, slurm: bool, write: Path | None, extra: Mapping[str, bool]) -> None:
    """Check that the options go together.

    Args:
        extra: other options that Slurm excludes, and whether they were given.

    Raises:
        WorkbenchError: they do not.
    """
    if request.is_given and not slurm:
        raise WorkbenchError(
            "--partition, --time, --gres and --sbatch belong to --slurm.", "Add --slurm.", kind="bad_request"
        )
    if slurm and write is not None:
        raise WorkbenchError("--write does not start the run, --slurm does.", "Omit one.", kind="bad_request")
    for option in (option for option, is_given in extra.items() if slurm and is_given):
        raise WorkbenchError(
            f"{option} is for a run on this machine.", f"Omit {option} or --slurm.", kind="bad_request"
        )
