"""One export, from what is asked for to the folder: planned, made by a helper process, put into place when whole."""

from collections.abc import Callable
from typing import Any

from workbench.export.plan import Plan, plan_export
from workbench.export.request import Exported, Request
from workbench.export.staging import written_aside
from workbench.models.child import run_in_child
from workbench.progress import Progress
from workbench.runs.folder import RunFolder
from workbench.storage.folders import files_below
from workbench.storage.paths import Home


def export_run(
    home: Home,
    run: RunFolder,
    request: Request,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> Exported:
    """Make ``request.folder``; takes seconds to minutes, in a process of its own.

    Args:
        progress: called from the calling thread while something moves.
        cancelled: asked several times a second; once true, the work ends and nothing is left of it.

    Raises:
        WorkbenchError: as :func:`~workbench.export.plan.plan_export`; disk or memory do not suffice; the check found
            something wrong; kind ``cancelled``.
    """
    plan = plan_export(home, run, request)
    plan.check(request.folder)
    try:
        made = _make(home, run, request, plan, progress, cancelled)
    except OSError as error:
        from workbench.failures.diagnose import diagnose

        raise diagnose(error, "writing the export") from error
    files = sorted(
        (str(file.relative_to(request.folder)), found.st_size) for file, found in files_below(request.folder)
    )
    return Exported(
        request.folder,
        tuple(files),
        made["check"],
        made["command"],
        (*plan.notices, *made["notices"]),
        made["figures"],
    )


def _make(
    home: Home,
    run: RunFolder,
    request: Request,
    plan: Plan,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> dict[str, Any]:
    """Have it made; what the helper process tells of it."""
    with written_aside(request.folder, request.force) as aside:
        work = {
            "home": str(home.root),
            "run": str(run.path),
            "request": request.as_json(),
            "aside": str(aside),
            "precise": plan.precise,
        }
        told: dict[str, Any] = run_in_child(
            "workbench.export.work:work", work, progress, cancelled, result=dict, what="the export"
        )
    return told
