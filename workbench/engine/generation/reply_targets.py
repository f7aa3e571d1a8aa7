"""Resolves the names that a user gives (a run, a checkpoint, an adapter folder, a model) to a base and adapters."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import MISSING_BASE, ReplyRequest
from workbench.engine.model.adapter_folder import check_adapter
from workbench.engine.model.adapters import ActiveAdapters
from workbench.errors import WorkbenchError
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.runs.folder import RunFolder, find_run
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ReplyTarget:
    """A base and the adapter on it (None for the base alone); ``run`` is the run that both come from, if any.

    ``has_chosen_base``: the user named the base, in the place of the one that run or adapter folder name.
    """

    model: ModelSection
    quantization: QuantizationSection
    adapter: Path | None
    template: str = "auto"
    run: RunFolder | None = None
    has_chosen_base: bool = False

    @property
    def label(self) -> str:
        """The run's id, or the adapter's folder."""
        return self.run.id if self.run is not None else str(self.adapter)


def resolve(home: Home, name: str, base: str = "", *, names_base: bool = True) -> ReplyTarget:
    """Find the base and adapter that a name refers to.

    Args:
        name: a run's id, prefix or folder; ``run@40`` for its checkpoint of step 40; an adapter folder; or the source
            of a base model.
        base: source of the base, in the place of the one that the run or the adapter folder names.
        names_base: an adapter folder must name its base, unless ``base`` is given.

    Raises:
        WorkbenchError: there is no such run, adapter or model.
    """
    if not base:
        return _resolve(home, name, names_base=names_base)
    target = _resolve(home, name, names_base=False)
    if target.adapter is None:
        raise WorkbenchError(
            f"{name} is a base model itself, so it cannot be put on {base}.",
            "Give a run, a checkpoint (run@40) or an adapter folder with --base.",
            kind="no_adapter",
        )
    chosen = ModelSection(source=base, resize_embeddings=target.model.resize_embeddings)
    return replace(target, model=chosen, has_chosen_base=True)


def template_of(target: ReplyTarget, tokenizer: "PreTrainedTokenizerBase") -> Template:
    """The template that an adapter was trained with, else the one that the target names."""
    if target.adapter is None or not target.adapter.is_dir():
        return Template.for_model(tokenizer, target.template)
    return Template.load(target.adapter, tokenizer)


def missing_base(target: ReplyTarget, error: WorkbenchError) -> WorkbenchError:
    """The error for an adapter whose base cannot be had as its trainer or the user names it; ``error`` says why."""
    if target.has_chosen_base:
        return WorkbenchError(error.message, error.cure, kind=MISSING_BASE)
    if target.run is None:
        where = "base_model_name_or_path in its adapter_config.json"
        message = f"The adapter in {target.adapter} names {target.model.source} as its base ({where}). {error.message}"
    else:
        message = f"{target.run.id} was trained on {target.model.source}. {error.message}"
    cure = f"If you have that model under another name or path, give it with --base; otherwise: {error.cure}"
    return WorkbenchError(message, cure, kind=MISSING_BASE)


def _resolve(home: Home, name: str, *, names_base: bool = True) -> ReplyTarget:
    folder = Path(name).expanduser().absolute()
    if (folder / "adapter_config.json").is_file():
        return _from_folder(folder, names_base=names_base)
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
    target = resolve(home, request.target, request.base)
    if request.combine:
        parts = [(resolve(home, part.target, request.base), part.weight) for part in request.combine]
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


def _from_folder(folder: Path, *, names_base: bool) -> ReplyTarget:
    """The target of an adapter folder, with the base of the run that it belongs to, else the base that it names."""
    for parent in (folder.parent, folder.parent.parent):
        run = RunFolder(parent)
        if run.recipe_file.is_file():
            return _from_run(run, folder)
    config = check_adapter(folder)
    source = config.get("base_model_name_or_path")
    if not names_base:
        source = source or "unnamed"
    if not isinstance(source, str) or not source:
        raise WorkbenchError(
            f"The adapter in {folder} does not name its base model.",
            "Give the base with --base, or set base_model_name_or_path in its adapter_config.json.",
            kind="adapter",
        )
    # Its rows of new tokens are there only in a resized base.
    model = ModelSection(source=source, resize_embeddings=bool(config.get("trainable_token_indices")))
    return ReplyTarget(model, QuantizationSection(), folder)


def _from_run(run: RunFolder, adapter: Path) -> ReplyTarget:
    recipe = run.recipe()
    return ReplyTarget(recipe.model, recipe.quantization, adapter, recipe.data.template, run)
