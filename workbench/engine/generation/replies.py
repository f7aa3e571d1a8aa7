"""Serves a chat request: loads the base it needs, activates its adapters, and generates the reply."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import ReplyPiece, ReplyRequest
from workbench.engine.generation.generation import StopSignal, generate_reply
from workbench.engine.generation.head_reply import head_reply
from workbench.engine.generation.reply_targets import ReplyTarget, missing_base, resolve, resolve_request, template_of
from workbench.engine.model.adapter_folder import check_adapter
from workbench.engine.model.adapters import (
    ActiveAdapters,
    can_use,
    changes_base_weights,
    check_same_base,
    check_scale,
    merge,
    scaled,
    use_adapters,
)
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.load_base import load_base
from workbench.errors import WorkbenchError
from workbench.progress import Cancelled, Progress, Report
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

Emit = Callable[[ReplyPiece], None]

# Kinds of errors that say that a model cannot be had under the name that an adapter has for it.
_NO_SUCH_BASE = ("model_not_found", "unreachable", "no_model", "no_safetensors", "gated")


@dataclass(frozen=True)
class ReplyModel:
    """The base in memory that answers a request, with the target whose template it uses and the adapters."""

    base: LoadedBase
    target: ReplyTarget
    adapters: ActiveAdapters


def prepare_reply(
    home: Home,
    request: ReplyRequest,
    base: LoadedBase | None,
    load: Callable[[Callable[[], LoadedBase]], LoadedBase],
    report: Report,
    cancelled: Cancelled,
) -> ReplyModel:
    """Get the base that a request needs: ``base`` if it fits, else another one is loaded.

    Args:
        load: called with a function that loads the other base; makes room for it first.

    Raises:
        WorkbenchError: a name refers to nothing, a model cannot be loaded, or an adapter belongs to another base.
    """
    target, adapters, parts = resolve_request(home, request)
    base_target = resolve(home, request.on, request.base) if request.on else parts[0] if parts else target
    if adapters.merged:
        unquantized = base_target.quantization.model_copy(update={"method": "none"})
        base_target = replace(base_target, quantization=unquantized)
    for folder in adapters.folders:
        check_adapter(folder)

    def load_new() -> LoadedBase:
        try:
            new = load_base(
                home,
                base_target.model,
                base_target.quantization,
                report,
                cancelled,
                is_chosen=base_target.run is not None and not adapters.merged,
            )
        except WorkbenchError as error:
            if base_target.adapter is not None and error.kind in _NO_SUCH_BASE:
                raise missing_base(base_target, error) from error
            raise
        if adapters.merged and new.quantization.method != "none":
            raise WorkbenchError(
                f"The base is stored as {new.stored_as}: it has no 16-bit weights to merge the adapter into.",
                "Chat without merging.",
                kind="cannot_merge",
            )
        _check_bases(new, parts, adapters)
        if adapters.merged:
            report(Progress(phase="merging"))
            merge(new, adapters)
        return new

    if base is None or not base.matches(base_target.model, base_target.quantization) or not can_use(base, adapters):
        base = load(load_new)
    else:
        _check_bases(base, parts, adapters)
    return ReplyModel(base, target, adapters)


def reply(model: ReplyModel, request: ReplyRequest, emit: Emit, cancelled: StopSignal) -> None:
    """Generate the reply.

    Raises:
        WorkbenchError: an adapter does not fit, or the question does not fit into the context.
    """
    with use_adapters(model.base, model.adapters):
        for notice in model.base.take_notices():
            emit(ReplyPiece(notice=notice))
        template, sampling = template_of(model.target, model.base.tokenizer), request.sampling
        if model.base.head is not None and model.adapters.parts:
            head_reply(model.base, template, request.messages, emit)
            return
        generate_reply(model.base, template, request.messages, sampling, emit, cancelled, tools=request.tools)


def reply_in_run(
    home: Home,
    run: RunFolder,
    base: LoadedBase,
    template: Template,
    request: ReplyRequest,
    emit: Emit,
    cancelled: StopSignal,
) -> None:
    """Generate a reply with the weights of a paused run, or with its base; changes nothing in the run.

    Raises:
        WorkbenchError: the request is for anything other than this run and its base.
    """
    if not _is_for_run(resolve(home, request.target), run, base, request):
        raise WorkbenchError(
            f"Run {run.id} is paused with its model in memory: you can chat only with it and its base.",
            "Resume or stop the run to chat with others.",
            kind="busy",
        )
    peft = base.active
    name = peft.active_adapter
    config = peft.peft_config[name].to_dict()
    if not request.adapter and changes_base_weights(config):
        raise WorkbenchError(
            f"Run {run.id} trains base weights, so its base is not available while it is paused.",
            "Chat with the run itself, or stop it first.",
            kind="busy",
        )
    if request.scale != 1:
        check_scale(run.id, config)
    with scaled(peft, name, request.scale) if request.adapter else peft.disable_adapter():
        messages, tools = request.messages, request.tools
        if base.head is not None and request.adapter:
            head_reply(base, template, messages, emit)
            return
        generate_reply(base, template, messages, request.sampling, emit, cancelled, tools=tools, in_training=True)


def _is_for_run(target: ReplyTarget, run: RunFolder, base: LoadedBase, request: ReplyRequest) -> bool:
    """Whether a request is for the run in its current state, or for its base."""
    if request.combine or request.merged:
        return False
    if target.run is not None and target.run.path.samefile(run.path):
        return not request.adapter or target.adapter == target.run.adapter
    return not request.adapter and target.adapter is None and base.matches(target.model, base.quantization)


def _check_bases(base: LoadedBase, parts: Sequence[ReplyTarget], adapters: ActiveAdapters) -> None:
    for part, folder in zip(parts, adapters.folders, strict=True):
        check_same_base(base, part.model, str(folder) if part.run is None else part.run.id)
