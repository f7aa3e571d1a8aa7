"""Records that a run starts or is resumed, and from where."""

import hashlib
import os

import psutil

from workbench import __version__
from workbench.engine.model.hardware import hardware_facts, library_versions
from workbench.engine.storage.disk_full_retry import RetryingJournal
from workbench.engine.training.run_warnings import RunWarnings
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.runs.checkpoints import Checkpoint, newest_intact
from workbench.runs.events import FORMAT, RunResumed, RunStarted
from workbench.runs.folder import RunFolder


def record_start(
    run: RunFolder, recipe: Recipe, journal: RetryingJournal, warnings: RunWarnings, *, resume: bool
) -> Checkpoint | None:
    """Write the event that the run started or resumed; returns the checkpoint to continue from.

    Args:
        resume: continue from the newest complete checkpoint, or from the start if there is none.
    """
    process = psutil.Process()
    # On another machine than the terminal's, whose processes the terminal cannot see.
    job = os.environ.get("SLURM_JOB_ID", "")
    host = os.uname().nodename if job else ""
    versions = {"loraworkbench": __version__, **library_versions()}
    if resume and journal.has_events:
        checkpoint, damaged = newest_intact(run.checkpoints)
        journal.write(
            RunResumed(
                run=run.id,
                step=checkpoint.step if checkpoint else 0,
                checkpoint=str(checkpoint.path) if checkpoint else None,
                versions=versions,
                pid=process.pid,
                process_started=process.create_time(),
                host=host,
                job=job,
                format=FORMAT,
            )
        )
        for problem in damaged:
            warnings.warn(f"{problem}. Using the previous one.", kind="checkpoint")
        if checkpoint is not None and checkpoint.step and not any(checkpoint.path.glob("optimizer*")):
            warnings.warn(
                f"{checkpoint.path.name} holds the weights only (training.save_only_model): the optimizer starts from "
                "zero, so this run is not the one that was interrupted.",
                kind="resume",
            )
        return checkpoint
    journal.write(
        RunStarted(
            run=run.id,
            model=recipe.model.source,
            recipe_hash=hashlib.sha256(to_yaml(recipe).encode()).hexdigest(),
            recipe=recipe.as_dict(),
            versions=versions,
            hardware=hardware_facts(),
            pid=process.pid,
            process_started=process.create_time(),
            host=host,
            job=job,
            format=FORMAT,
        )
    )
    if recipe.training.save_only_model and recipe.training.save_steps:
        warnings.warn(
            "Planned checkpoints hold the weights only (training.save_only_model): after a crash this run cannot be "
            "resumed exactly. A stop or a pause saves everything.",
            kind="resume",
        )
    return None
