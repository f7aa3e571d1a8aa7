"""Runs one export: plans it, has a helper process make it, and renames the finished folder into place."""

from workbench.export.gguf.fetched_tools import fetch_tools
from workbench.export.plan import Plan, plan_export
from workbench.export.request import Exported, HelperResult, Request
from workbench.export.staging import staging_folder
from workbench.models.child import run_in_child
from workbench.progress import Cancelled, Report
from workbench.runs.folder import RunFolder
from workbench.storage.folders import files_below
from workbench.storage.paths import Home


def export_run(
    home: Home,
    run: RunFolder,
    request: Request,
    progress: Report,
    cancelled: Cancelled,
) -> Exported:
    """Export a run to ``request.folder``. Takes seconds to minutes, in a helper process.

    Args:
        progress: called from the calling thread.
        cancelled: once it returns True, the export stops and leaves no files.

    Raises:
        WorkbenchError: as :func:`~workbench.export.plan.plan_export`; kind ``needs_download`` if llama.cpp's converter
            is needed and must not be downloaded; too little disk space or memory; the check of the
            written files failed; kind ``cancelled``.
    """
    plan = plan_export(home, run, request)
    plan.check(request.folder)
    if plan.writer is not None and plan.writer.kind == "download":
        if not request.download:
            raise plan.writer.refusal()
        fetch_tools(home, progress, cancelled)
        # Now the converter says whether it knows the model.
        plan = plan_export(home, run, request)
    try:
        result = _make(home, run, request, plan, progress, cancelled)
    except OSError as error:
        from workbench.failures.diagnose import diagnose

        raise diagnose(error, "writing the export") from error
    files = sorted(
        (str(file.relative_to(request.folder)), status.st_size) for file, status in files_below(request.folder)
    )
    notices = (*plan.notices, *result.notices)
    return Exported(request.folder, tuple(files), result.check, result.command, notices, result.figures, result.url)


def _make(
    home: Home,
    run: RunFolder,
    request: Request,
    plan: Plan,
    progress: Report,
    cancelled: Cancelled,
) -> HelperResult:
    """Let a helper process write the export, and rename it into place."""
    with staging_folder(request.folder, request.force) as folder:
        arguments = {
            "home": str(home.root),
            "run": str(run.path),
            "request": request.as_json(),
            "folder": str(folder),
            "precise": plan.precise,
        }
        target = "workbench.export.work:work"
        return run_in_child(target, arguments, progress, cancelled, result=HelperResult, what="the export")
