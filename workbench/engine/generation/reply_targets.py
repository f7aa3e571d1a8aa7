"""Names that a user gives (a run, one of its checkpoints, an adapter folder, a model) as what has to be in memory."""

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
class Target:
    """A base and the adapter on it, None for the base alone. ``run`` is the run that both come from, if any."""

    model: ModelSection
    quantization: QuantizationSection
    adapter: Path | None
    template: str = "auto"
    run: RunFolder | None = None


def resolve(home: Home, name: str) -> Target:
    """What a name stands for.

    Args:
        name: a run's id, prefix or folder; ``run@40`` for its checkpoint of step 40; an adapter folder; or the source
            of a base model.

    Raises:
        WorkbenchError: there is no such thing.
    """
    folder = Path(name).expanduser().absolute()
    if (folder / "adapter_config.json").is_file():
        return _of_folder(folder)
    run_name, at, step = name.rpartition("@")
    try:
        if at and step.isdecimal():
            run = find_run(home, run_name)
            return _of_run(run, run.checkpoints / f"checkpoint-{int(step)}")
        run = find_run(home, name)
        return _of_run(run, run.adapter)
    except WorkbenchError as error:
        # An id of the hub has a slash, a model's folder or file exists; anything else was meant as a run.
        if error.kind != "run_not_found" or not ("/" in name or folder.exists()):
            raise
        return Target(ModelSection(source=name), QuantizationSection(), None)


def wanted(home: Home, request: ReplyRequest) -> tuple[Target, ActiveAdapters, list[Target]]:
    """What a request asks for: the target that gives base and template, the voice, and the targets it is made of.

    Raises:
        WorkbenchError: a name stands for nothing, or an adapter is asked for where there is none.
    """
    target = resolve(home, request.target)
    if request.combine:
        parts = [(resolve(home, part.target), part.weight) for part in request.combine]
        for part, asked in zip(parts, request.combine, strict=True):
            if part[0].adapter is None:
                raise WorkbenchError(
                    f"{asked.target} is a base model: there is no adapter to combine.",
                    "Give runs or adapter folders.",
                    kind="no_adapter",
                )
    elif request.adapter and target.adapter is not None:
        parts = [(target, 1.0)]
    else:
        return target, ActiveAdapters(), []
    voice = ActiveAdapters(
        tuple((part.adapter, weight) for part, weight in parts if part.adapter is not None),
        request.scale,
        request.merged,
    )
    return target, voice, [part for part, _ in parts]


def _of_folder(folder: Path) -> Target:
    """An adapter folder: of the run it lies in (at its top, or among its checkpoints), else of the base it names."""
    for parent in (folder.parent, folder.parent.parent):
        run = RunFolder(parent)
        if run.recipe_file.is_file():
            return _of_run(run, folder)
    source = check_adapter(folder).get("base_model_name_or_path")
    if not isinstance(source, str) or not source:
        raise WorkbenchError(
            f"The adapter in {folder} does not name its base model.",
            "Set base_model_name_or_path in its adapter_config.json.",
            kind="adapter",
        )
    return Target(ModelSection(source=source), QuantizationSection(), folder)


def _of_run(run: RunFolder, adapter: Path) -> Target:
    recipe = run.recipe()
    return Target(recipe.model, recipe.quantization, adapter, recipe.data.template, run)
