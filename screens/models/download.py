"""Downloads of models as jobs in the background, and how far one is."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content

from screens.shell.header import short_name
from screens.widgets.glyphs import bar
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from screens.shell.jobs import Job
    from screens.workbench import Workbench

_BAR_WIDTH = 24


def running_download(app: Workbench, source: str) -> Job | None:
    """The download of a model, if it is running."""
    job = app.jobs.get(_key(source))
    return job if job is not None and not job.is_over else None


def start_download(app: Workbench, source: str) -> Job:
    """Download a model through the engine."""
    from workbench.engine.client.protocol import new_request_id

    request_id = new_request_id()
    return app.jobs.start(
        _key(source),
        f"download of {short_name(source)}",
        partial(_fetch, app, source, request_id),
        partial(_cancel, app, request_id),
        open_result=lambda: app.attempt(app.action_show_tab("models")),
        describe=lambda _: "The model is on disk.",
    )


def download_text(job: Job) -> Content:
    """The progress of a download, for the facts of its model."""
    progress = job.progress
    words = f"{progress.phase} {progress.detail}" if progress else "starting the engine"
    head = Content.styled(f"\n{plain(words)}", "$accent")
    if progress is None or progress.fraction is None:
        return head
    return Content.assemble(
        head, "\n", (bar(progress.fraction, _BAR_WIDTH), "$accent on $panel"), f" {100 * progress.fraction:.0f} %"
    )


def _key(source: str) -> tuple[str, str]:
    return "download", source


async def _fetch(app: Workbench, source: str, request_id: str, job: Job) -> str:
    from workbench.recipe.sections.model import ModelSection

    await app.start_engine()
    async with aclosing(app.session.engine.fetch(ModelSection(source=source), request_id=request_id)) as answers:
        async for progress in answers:
            job.report(progress)
    return source


def _cancel(app: Workbench, request_id: str) -> None:
    from workbench.engine.client.protocol import CancelRequest

    app.attempt(app.session.engine.cancel(CancelRequest(id=request_id)))
