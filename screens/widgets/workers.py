"""Cancels workers before the widgets that they update are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.worker import NoActiveWorker, Worker, get_current_worker

if TYPE_CHECKING:
    from textual.dom import DOMNode


def cancel_workers_of(node: DOMNode) -> None:
    """Cancel the workers of a node and of all below it, except the worker that calls this.

    Textual ends the workers of a screen after it has removed the screen's widgets, so a worker could resume in between
    and look for a widget that is gone.
    """
    caller = _current_worker()
    for worker in node.workers:
        if worker is not caller and node in worker.node.ancestors_with_self:
            worker.cancel()


def _current_worker() -> Worker[Any] | None:
    try:
        return get_current_worker()
    except NoActiveWorker:
        return None
