"""Loads the base and the adapters that are served, each under its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.adapters.method import Method
from workbench.adapters.registry import adapter_method
from workbench.data.templates.template import Template
from workbench.engine.generation.generation import end_tokens
from workbench.engine.generation.reply_targets import ReplyTarget, resolve, template_of
from workbench.engine.model.adapter_folder import check_adapter
from workbench.engine.model.adapters import ActiveAdapters, can_use, check_same_base, use_adapters
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.load_base import load_base
from workbench.engine.model.sequence_adapter import SequenceHead
from workbench.errors import WorkbenchError
from workbench.progress import Cancelled, Report
from workbench.storage.paths import Home


@dataclass(frozen=True)
class ServedModel:
    """The base or an adapter on it, with its template and the tokens that end its replies."""

    name: str
    adapters: ActiveAdapters
    template: Template
    ends: Sequence[int]


@dataclass(frozen=True)
class Served:
    """A base in memory and all that is served from it, by name."""

    base: LoadedBase
    models: Mapping[str, ServedModel]


def load_served(
    home: Home,
    names: Sequence[str],
    base_source: str,
    report: Report,
    cancelled: Cancelled,
) -> Served:
    """Load what is to be served. The base is always among it.

    Args:
        names: runs, checkpoints (run@40), adapter folders or one base; ``NAME=TARGET`` chooses the name.
        base_source: the base, in the place of the one that runs and adapter folders name.

    Raises:
        WorkbenchError: a name refers to nothing, the targets have different bases, or an adapter cannot share the base.
    """
    targets = _named(home, names, base_source)
    first = next(iter(targets.values()))
    is_chosen = first.run is not None
    base = load_base(home, first.model, first.quantization, report, cancelled, is_chosen=is_chosen)
    adapters = {name: target for name, target in targets.items() if target.adapter is not None}
    models: dict[str, ServedModel] = {}
    first_method: Method | None = None
    for name, target in adapters.items():
        assert target.adapter is not None
        active = ActiveAdapters(((target.adapter, 1.0),))
        if not target.has_chosen_base:
            check_same_base(base, target.model, name)
        if models and not can_use(base, active):
            raise WorkbenchError(
                f"{name} changes the base's own weights or vocabulary, so it cannot share a base with others.",
                f"Serve it alone: `loraworkbench serve {name}`.",
                kind="cannot_share",
            )
        config = check_adapter(target.adapter)
        if (head := SequenceHead.of(target.adapter, config)) is not None:
            raise WorkbenchError(
                f"{name} is {head.label}, and the server generates replies.",
                f"`loraworkbench chat {name}` says what it predicts of a text; in Python, the adapter loads on "
                "AutoModelForSequenceClassification.",
                kind="not_served",
            )
        method = adapter_method(config)
        if first_method is not None and method is not first_method:
            raise WorkbenchError(
                f"{name} is a {method.label} adapter, and the ones before it are {first_method.label} adapters: PEFT "
                "attaches adapters of one method to a base.",
                f"Serve it alone: `loraworkbench serve {name}`.",
                kind="cannot_share",
            )
        first_method = method
        with use_adapters(base, active):
            template = template_of(target, base.tokenizer)
            models[name] = ServedModel(name, active, template, end_tokens(base, template))
    if not base.is_altered:
        alone = next((target for target in targets.values() if target.adapter is None), None)
        template = Template.for_model(base.tokenizer, alone.template if alone is not None else "auto")
        name = next((name for name, target in targets.items() if target.adapter is None), _base_name(first))
        models[name] = ServedModel(name, ActiveAdapters(), template, end_tokens(base, template))
    base.packing.allow()
    return Served(base, models)


def _named(home: Home, names: Sequence[str], base: str) -> dict[str, ReplyTarget]:
    targets: dict[str, ReplyTarget] = {}
    for given in names:
        chosen, equals, rest = given.partition("=")
        is_named = bool(equals) and "/" not in chosen and not Path(given).exists()
        target = resolve(home, rest if is_named else given, base)
        name = chosen if is_named else _name(given, target)
        if name in targets:
            raise WorkbenchError(
                f"Two of the models would be called {name}.",
                f"Give one another name, as in other={given}.",
                kind="same_name",
            )
        targets[name] = target
    return targets


def _name(given: str, target: ReplyTarget) -> str:
    if target.adapter is None:
        return _base_name(target)
    if target.run is not None and target.adapter == target.run.adapter:
        return target.run.id
    if target.run is not None:
        return f"{target.run.id}@{target.adapter.name.removeprefix('checkpoint-')}"
    return target.adapter.name


def _base_name(target: ReplyTarget) -> str:
    """A hub id as it is; of a folder or file only its name, since clients need not know this machine's folders."""
    source = Path(target.model.source).expanduser()
    return source.name if source.exists() or source.is_absolute() else target.model.source
