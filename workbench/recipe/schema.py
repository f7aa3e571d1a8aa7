"""Defines the recipe, the pydantic model that configures a run: every setting with its default, bounds and help text.

The same recipe is the form on screen, the YAML preset and the input of the command line; it is priced, run and
exported. Settings have the names of the libraries (PEFT's ``LoraConfig``, bitsandbytes, transformers'
``TrainingArguments``); each section has a module in :mod:`workbench.recipe.sections`. A recipe is immutable:
:func:`workbench.recipe.text.edit` returns a changed copy. Reading and writing YAML is in :mod:`workbench.recipe.text`.
"""

from typing import Any, Self

from pydantic import Field, model_validator

from workbench.adapters.registry import method_of, without_dropout
from workbench.adapters.starts import start_of
from workbench.objectives.table import LINKED
from workbench.recipe.exclusions import check_training
from workbench.recipe.sections.adapter import AdapterSection
from workbench.recipe.sections.data import DataSection
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.sections.objective import ObjectiveSection
from workbench.recipe.sections.output import OutputSection
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.recipe.sections.section import AUTO, Section, excluded
from workbench.recipe.sections.training import TrainingSection


class Recipe(Section):
    """The complete configuration of a run."""

    model: ModelSection = Field(default_factory=ModelSection)
    quantization: QuantizationSection = Field(default_factory=QuantizationSection)
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    data: DataSection = Field(default_factory=DataSection)
    objective: ObjectiveSection = Field(default_factory=ObjectiveSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    output: OutputSection = Field(default_factory=OutputSection)

    @model_validator(mode="after")
    def _settings_that_exclude_each_other(self) -> Self:
        method = method_of(self.adapter.method)
        if refusal := method.refusal_on(self.adapter, self.quantization.method):
            raise excluded(refusal.path, refusal.reason, refusal.cure)
        if self.training.max_steps > 0 and (refusal := method.steps_refusal(self.adapter, self.training.max_steps)):
            raise excluded(refusal.path, refusal.reason, refusal.cure)
        start = start_of(self.adapter.init_lora_weights)
        if start is not None and self.model.resize_embeddings:
            raise excluded(
                "adapter.init_lora_weights",
                f"{start.name} does not work with new rows of the embeddings (model.resize_embeddings)",
                "set it to true",
            )
        check_training(self.training, self.adapter, self.objective, self.data)
        self._check_objective()
        return self

    def _check_objective(self) -> None:
        """Refuse what the objective cannot use; a reference is the base with the adapter switched off."""
        objective, adapter, spec = self.objective, self.adapter, self.objective.spec
        if spec.records == "texts":
            return
        if spec.loss_types and objective.loss_type not in spec.loss_types:
            raise excluded(
                "objective.loss_type",
                f"{objective.loss_type} is not a loss of {spec.kind}",
                f"set it to {' or '.join(filter(None, (', '.join(spec.loss_types[:-1]), spec.loss_types[-1])))}",
            )
        start = start_of(adapter.init_lora_weights)
        if start is not None and start.reads_records and spec.has_head:
            raise excluded(
                "adapter.init_lora_weights",
                f"{start.name} reads the tokens that are trained, and {spec.kind} trains none",
                "set it to true",
            )
        if spec.has_reference and start is not None and start.name == "loftq":
            raise excluded(
                "adapter.init_lora_weights",
                f"loftq starts away from the quantized base, which is the reference of {spec.kind}",
                "set it to true",
            )
        if spec.has_reference and adapter.bias != "none":
            raise excluded(
                "adapter.bias",
                f"{adapter.bias} trains biases of the base, which is the reference of {spec.kind}",
                "set it to none",
            )
        if spec.has_reference and method_of(adapter.method).trains_base(adapter) and not adapter.continue_from:
            raise excluded(
                "adapter.init_lora_weights",
                f"{adapter.init_lora_weights} moves weights of the base to the adapter, so that the base without it "
                f"cannot be the reference of {spec.kind}",
                "set it to true, gaussian or orthogonal",
            )
        if self.data.packing:
            whole = "compares whole responses" if spec.is_preference else "reads whole texts"
            raise excluded("data.packing", f"{spec.kind} {whole}, which are not packed", "set it to false")
        if not self.data.completion_only:
            raise excluded(
                "data.completion_only",
                f"{spec.kind} compares responses to the same prompt, so the prompt cannot be trained"
                if spec.is_preference
                else f"{spec.kind} learns labels and no tokens",
                "set it to true",
            )
        if spec.has_head and self.training.router_aux_loss:
            raise excluded(
                "training.router_aux_loss",
                f"{spec.kind} runs without the part of the model that computes the router's balancing loss",
                "set it to 0",
            )
        if self.data.format != "auto":
            raise excluded(
                "data.format",
                f"{self.data.format} {'has one response per prompt' if spec.is_preference else 'has no label'}; "
                f"{spec.kind} needs {spec.records_in_words}",
                "set it to auto, and name columns of other names in data.columns",
            )
        is_auto, least = self.training.per_device_train_batch_size == AUTO, objective.least_micro_batch
        if self.training.largest_micro_batch < least:
            raise excluded(
                f"training.{'effective_batch_size' if is_auto else 'per_device_train_batch_size'}",
                f"{spec.kind} compares each response with the others of its micro-batch",
                f"set it to {least} or more",
            )

    @property
    def least_micro_batch(self) -> int:
        """The smallest micro-batch that divides the effective batch and that the objective can use."""
        effective, least = self.training.effective_batch, self.objective.least_micro_batch
        return next((size for size in range(least, effective + 1) if effective % size == 0), effective)

    @property
    def trained_adapter(self) -> AdapterSection:
        """The adapter as it is trained: preference training runs without dropout, as TRL's does."""
        return without_dropout(self.adapter) if self.objective.is_preference else self.adapter

    def as_dict(self) -> dict[str, dict[str, object]]:
        """The values by section and name; :func:`workbench.recipe.text.parse` turns them back into an equal recipe.

        A linked ``lora_alpha`` is left out, so that it stays linked, and a ``lora_dropout`` that nobody has set. So are
        the default objective, LoRA as the method, no subfolder of the model, no number of held-out records (recipes are
        written and hashed as before there were others), keys that follow the objective, and keys that it does not use.
        """
        data: dict[str, dict[str, object]] = self.model_dump()
        if self.model.subfolder is None:
            del data["model"]["subfolder"]
        if self.objective == ObjectiveSection():
            del data["objective"]
        else:
            left_out = {*LINKED, *self.objective.spec.unused({*data["objective"]})} - self.objective.model_fields_set
            for name in left_out:
                del data["objective"][name]
        if not self.data.eval_records:
            del data["data"]["eval_records"]
        if self.adapter.alpha_is_linked:
            del data["adapter"]["lora_alpha"]
        if self.adapter.dropout_is_default:
            del data["adapter"]["lora_dropout"]
        for name in ("method", "options", "continue_from", "layers_pattern", "exclude_modules"):
            if data["adapter"][name] == AdapterSection.model_fields[name].get_default(call_default_factory=True):
                del data["adapter"][name]
        return data

    def get(self, path: str) -> Any:
        """The value at a dotted key such as ``adapter.r``."""
        section, _, name = path.partition(".")
        return getattr(getattr(self, section), name)


def section_models() -> dict[str, type[Section]]:
    """The recipe's sections by name, in order."""
    annotations = {name: info.annotation for name, info in Recipe.model_fields.items()}
    return {
        name: model for name, model in annotations.items() if isinstance(model, type) and issubclass(model, Section)
    }


def known_paths() -> list[str]:
    """Every dotted key of a recipe, in order."""
    return [f"{section}.{name}" for section, model in section_models().items() for name in model.model_fields]
