"""Declares all operations of the engine: HTTP with JSON on a Unix socket.

To add one, declare it here and implement it in :mod:`workbench.engine.daemon.api`; the client's method and the route
are made from the declaration.

An error is a :class:`~workbench.errors.WorkbenchError` as JSON with a status of at least 400; in a stream it is an
event ``error`` with the same data. A streamed request has an id, chosen by the client, in the header
:data:`~workbench.engine.client.protocol.REQUEST_ID`.
"""

from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from workbench.data.columns import FoundColumns
from workbench.data.facts import DataFacts, Example
from workbench.engine.client.operation import Call, Nothing, Stream, use_adapter
from workbench.engine.client.protocol import (
    CancelRequest,
    ColumnsRequest,
    ControlRequest,
    EngineStatus,
    Evaluated,
    EvaluateRequest,
    ExamplesRequest,
    FactsRequest,
    ReplyPiece,
    ReplyRequest,
    ResumeRequest,
    ShutdownRequest,
    StartedRun,
    StopRequest,
    TrainRequest,
)
from workbench.models.skeleton import Skeleton
from workbench.models.skeleton_json import skeleton_from_json, skeleton_to_json
from workbench.planning.queue import QueueRequest, QueueState
from workbench.progress import Progress
from workbench.recipe.sections.model import ModelSection

_skeleton: TypeAdapter[Skeleton] = TypeAdapter(
    Annotated[Any, PlainSerializer(skeleton_to_json), PlainValidator(skeleton_from_json)]
)
use_adapter(Skeleton, _skeleton)


class EngineApi:
    """The operations, as attributes. :class:`~workbench.engine.client.client.EngineClient` calls them."""

    status = Call("/status", Nothing, EngineStatus, method="GET", is_prompt=True)
    """The engine's current state; answered at once even if it is busy."""

    train = Call("/train", TrainRequest, StartedRun, refusals=("busy", "engine_gone"))
    """Start a run."""

    resume = Call("/resume", ResumeRequest, StartedRun, refusals=("busy", "engine_gone", "nothing_to_resume"))
    """Resume a run from its newest complete checkpoint."""

    control = Call("/control", ControlRequest, Nothing, refusals=("no_run",))
    """Request an action on the live run. It is carried out between two steps, and its journal records when."""

    stop = Call("/stop", StopRequest, Nothing, refusals=("no_run",))
    """Stop the live run within one micro-batch."""

    queue = Call("/queue", Nothing, QueueState, method="GET", is_prompt=True)
    """The queued runs and the results of earlier ones."""

    edit_queue = Call("/queue", QueueRequest, QueueState, refusals=("queue_entry",))
    """Change the queue; returns the changed queue."""

    reply = Stream[ReplyRequest, Progress | ReplyPiece](
        "/reply", ReplyRequest, (Progress, ReplyPiece), refusals=("busy", "engine_gone")
    )
    """Yield progress while a model loads, then the reply in pieces; the last piece has ``done``."""

    evaluate = Stream[EvaluateRequest, Progress | Evaluated](
        "/evaluate", EvaluateRequest, (Progress, Evaluated), refusals=("busy", "engine_gone")
    )
    """Evaluate a run; yields progress, and last the file with the evaluation."""

    cancel = Call("/cancel", CancelRequest, Nothing)
    """Cancel the stream with this request id; does nothing if there is none."""

    fetch = Stream[ModelSection, Progress]("/fetch", ModelSection, (Progress,))
    """Download a model, and convert it if necessary; yields progress."""

    tree = Call("/tree", ModelSection, Skeleton, refusals=("model_not_found",))
    """The module tree of a model, from its configuration."""

    facts = Stream[FactsRequest, Progress | DataFacts](
        "/facts", FactsRequest, (Progress, DataFacts), refusals=("tokenizer_elsewhere", "data_elsewhere")
    )
    """Progress and the facts of a dataset: those of a sample, then the exact ones. Needs no model in memory."""

    examples = Call("/examples", ExamplesRequest, list[Example])
    """Records as they are fed to training."""

    columns = Call("/columns", ColumnsRequest, FoundColumns)
    """The columns of a dataset, each with an example."""

    unload = Call("/unload", Nothing, Nothing, refusals=("busy", "engine_gone"))
    """Release the memory of the loaded model."""

    shutdown = Call("/shutdown", ShutdownRequest, Nothing, refusals=("busy",), is_prompt=True)
    """End the engine's process."""


def operations() -> dict[str, "Call[object, object] | Stream[object, object]"]:
    """All operations by name."""
    return {name: one for name, one in vars(EngineApi).items() if isinstance(one, Call | Stream)}
