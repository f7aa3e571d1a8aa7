"""The newest run of a home, if it broke off: what the app says of it when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screens.widgets.key_texts import key
from screens.widgets.plain import plain
from workbench.runs.folder import all_runs, summarise

if TYPE_CHECKING:
    from workbench.storage.paths import Home


def broken_off_run(home: Home) -> str:
    """Return that the newest run broke off, at which step, and the keys that resume it; else an empty string."""
    runs = all_runs(home)
    if not runs:
        return ""
    summary = summarise(runs[0], quick=True)
    if summary.state != "interrupted" or not summary.can_be_resumed:
        return ""
    steps = f"step {summary.step}/{summary.max_steps}" if summary.max_steps else f"step {summary.step}"
    resuming = f"{key('tab.train')} opens Train, {key('run.resume')} resumes it."
    return f"{plain(runs[0].name)} was interrupted at {steps}: {summary.reason}. {resuming}"
