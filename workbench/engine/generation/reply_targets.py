"""Resolves the names that a user gives (a run, a checkpoint, an adapter folder, a model) to a base and adapters."""

from dataclasses import dataclass
from pathlib import Path

from workbench.engine.client.protocol import ReplyRequest
from workbench.engine.model.adapters import ActiveAdapters
from workbench.engine.model.base import check_adapter
from workbench.errors import WorkbenchError
from workbench.recipe.schema import ModelSection, QuantizationSection
from workbench.runs.folder import RunFolder, find_run
from workbench.storage.paths import Home


@dataclass(frozen=True)
class ReplyTarget:
    """A base and the adapter on it (None for the base alone); ``run`` is the run that both come from, if any."""

    model: ModelSection
    quantization: QuantizationSection
    adapter: Path | None
    template: str = "auto"
    run: RunFolder | None = None


def resolve(home: Home, name: str) -> ReplyTarget:
    """Find the base and adapter that a name refers to.

    Args:
        name: a run's id, prefix or folder; ``run@40`` for its checkpoint of step 40; an adapter folder; or the source
            of a base model.

    Raises:
        WorkbenchError: there is no such run, adapter or model.
    """
    folder = Path(name).expanduser().absolute()
    if (folder / "adapter_config.json").is_file():
        return _from_folder(folder)
    run_name, at, step = name.rpartition("@")
    try:
        if at and step.isdecimal():
            run = find_run(home, run_name)
            return _from_run(run, run.checkpoints / f"checkpoint-{int(step)}")
        run = find_run(home, name)
        return _from_run(run, run.adapter)
    except WorkbenchError as error:
        # A hub id has a slash, and a model's folder or file exists; any other name was meant to be a run.
        if error.kind != "run_not_found" or not ("/" in name or folder.exists()):
            raise
        return ReplyTarget(ModelSection(source=name), QuantizationSection(), None)


def resolve_request(home: Home, request: ReplyRequest) -> tuple[ReplyTarget, ActiveAdapters, list[ReplyTarget]]:
    """Find what a request needs: the target whose template it uses, the adapters, and the target of each adapter.

    Raises:
        WorkbenchError: a name refers to nothing, or to a base where an adapter is needed.
    """
    target = resolve(home, request.target)
    if request.combine:
        parts = [(resolve(home, part.target), part.weight) for part in request.combine]
        for (part_target, _), part in zip(parts, request.combine, strict=True):
            if part_target.adapter is None:
                raise WorkbenchError(
                    f"{part.target} is a base model: there is no adapter to combine.",
                    "Give runs or adapter folders.",
                    kind="no_adapter",
                )
    elif request.adapter and target.adapter is not None:
        parts = [(target, 1.0)]
    else:
        return target, ActiveAdapters(), []
    adapters = ActiveAdapters(
        tuple((part.adapter, weight) for part, weight in parts if part.adapter is not None),
        request.scale,
        request.merged,
    )
    return target, adapters, [part for part, _ in parts]


def _from_folder(folder: Path) -> ReplyTarget:
    """The target of an adapter folder, with the base of the run that it belongs to, else the base that it names."""
    for parent in (folder.parent, folder.parent.parent):
        run = RunFolder(parent)
        if run.recipe_file.is_file():
            return _from_run(run, folder)
    source = check_adapter(folder).get("base_model_name_or_path")
    if not isinstance(source, str) or not source:
        raise WorkbenchError(
            f"The adapter in {folder} does not name its base model.",
            "Set base_model_name_or_path in its adapter_config.json.",
            kind="adapter",
        )
    return ReplyTarget(ModelSection(source=source), QuantizationSection(), folder)


def _from_run(run: RunFolder, adapter: Path) -> ReplyTarget:
    recipe = run.recipe()
    return ReplyTarget(recipe.model, recipe.quantization, adapter, recipe.data.template, run)
