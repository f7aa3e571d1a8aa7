"""A reply from its request to its last piece: what has to be in memory is brought there, and answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import ReplyPiece, ReplyRequest
from workbench.engine.generation.generation import Cancelled, generate_reply
from workbench.engine.generation.reply_targets import Target, resolve, wanted
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
from workbench.engine.model.base import LoadedBase, check_adapter, load_base
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

Emit = Callable[[ReplyPiece], None]


@dataclass(frozen=True)
class Asked:
    """What answers a request, in memory."""

    base: LoadedBase
    target: Target
    voice: ActiveAdapters


def base_for(
    home: Home,
    request: ReplyRequest,
    base: LoadedBase | None,
    load: Callable[[Callable[[], LoadedBase]], LoadedBase],
    report: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> Asked:
    """Find out what a request wants, and have it in memory: ``base`` where that serves, else another one.

    Args:
        load: given what loads the other one, makes room for it first.

    Raises:
        WorkbenchError: a name stands for nothing, a model cannot be loaded, or an adapter belongs to another base.
    """
    target, voice, parts = wanted(home, request)
    under = resolve(home, request.on) if request.on else parts[0] if parts else target
    if voice.merged:
        under = replace(under, quantization=under.quantization.model_copy(update={"method": "none"}))
    for folder in voice.folders:
        check_adapter(folder)

    def new() -> LoadedBase:
        made = load_base(home, under.model, under.quantization, report, cancelled)
        _check_bases(made, parts, voice)
        if voice.merged:
            report(Progress(phase="merging"))
            merge(made, voice)
        return made

    if base is None or not base.matches(under.model, under.quantization) or not can_use(base, voice):
        base = load(new)
    else:
        _check_bases(base, parts, voice)
    return Asked(base, target, voice)


def reply(asked: Asked, request: ReplyRequest, emit: Emit, cancelled: Cancelled) -> None:
    """Write the reply.

    Raises:
        WorkbenchError: an adapter does not fit, or the question does not fit into the context.
    """
    base = asked.base
    with use_adapters(base, asked.voice):
        generate_reply(base, _template(asked), request.messages, request.sampling, emit, cancelled)


def reply_in_run(
    home: Home,
    run: RunFolder,
    base: LoadedBase,
    template: Template,
    request: ReplyRequest,
    emit: Emit,
    cancelled: Cancelled,
) -> None:
    """Write a reply with the weights of a run that stands still, or with the base under it. Changes nothing of it.

    Raises:
        WorkbenchError: something else is asked for than this run and its base.
    """
    if not _is_of_run(resolve(home, request.target), run, base, request):
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
        generate_reply(base, template, request.messages, request.sampling, emit, cancelled, in_training=True)


def _is_of_run(target: Target, run: RunFolder, base: LoadedBase, request: ReplyRequest) -> bool:
    """Whether a request is for the run itself as it is now, or for the base it is trained on."""
    if request.combine or request.merged:
        return False
    if target.run is not None and target.run.path.samefile(run.path):
        return not request.adapter or target.adapter == target.run.adapter
    return not request.adapter and target.adapter is None and base.matches(target.model, base.quantization)


def _check_bases(base: LoadedBase, parts: Sequence[Target], voice: ActiveAdapters) -> None:
    for part, folder in zip(parts, voice.folders, strict=True):
        check_same_base(base, part.model, str(folder) if part.run is None else part.run.id)


def _template(asked: Asked) -> Template:
    target, tokenizer = asked.target, asked.base.tokenizer
    if target.adapter is None or not target.adapter.is_dir():
        return Template.for_model(tokenizer, target.template)
    return Template.load(target.adapter, tokenizer)
