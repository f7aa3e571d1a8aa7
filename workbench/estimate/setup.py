"""The settings of a recipe that memory and speed of a training step depend on.

Searches compare many setups. They are derived with :func:`dataclasses.replace` or :meth:`Setup.varied`, which is much
faster than editing and validating a recipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from workbench.adapters.registry import method_of
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError
from workbench.models.stored_quantization import StoredQuantization
from workbench.recipe.optimizers import LORA_FA
from workbench.recipe.resolved import (
    ACCUMULATION,
    CHECKPOINTING,
    MICRO_BATCH,
    ResolvedRecipe,
    auto_keys,
    resolved,
    with_max_length,
)
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import MIN_LENGTH
from workbench.recipe.sections.model import AttentionName
from workbench.recipe.sections.quantization import QuantMethod
from workbench.recipe.sections.section import AUTO, Offload

# Dotted keys of a recipe, and the fields that hold their values. Those of the adapter section are AdapterSettings' own.
_FIELDS = {
    "model.attn_implementation": "attention",
    "quantization.method": "method",
    "quantization.double_quant": "double_quant",
    "training.optim": "optimizer",
    "data.max_length": "length",
    CHECKPOINTING: "checkpointing",
    "training.tiled_mlp": "tiles_mlp",
    MICRO_BATCH: "micro_batch",
    ACCUMULATION: "accumulation",
}
_ADAPTER = "adapter."
_QUANTIZATION = ("method", "double_quant")


@dataclass(frozen=True)
class Setup:
    """What determines the memory and speed of a training step.

    Attributes:
        adapter: the settings that determine the adapter's shapes.
        method: of quantization, as are ``double_quant`` and ``compute_dtype`` (which may be ``auto``).
        checkpointing: whether activations are recomputed, and whether from host memory.
        attention: how attention is computed; ``auto`` for a fused kernel.
        length: tokens per record: those of the longest record if known, at most ``max_length``.
        is_packed: every sequence is ``length`` tokens long.
        median: tokens of the median record, if known; the speed of a micro-batch depends on it.
        auto_keys: dotted keys that are still ``auto``; their fields contain the values that need the least memory.
        stored: how the model's files quantize the base, which no recipe changes; None if they do not.
        texts: texts per record: 2 where a record is a pair of responses.
        least_micro_batch: the smallest micro-batch that the objective can use.
        tiles_mlp: MLPs are computed in pieces of the sequence.
        smooths: the loss smooths its targets over the vocabulary.
        keeps_start: a copy of the adapter that the run starts from is kept on the device, as the reference.
    """

    adapter: AdapterSettings
    method: QuantMethod
    double_quant: bool
    compute_dtype: str
    optimizer: str
    micro_batch: int
    accumulation: int
    checkpointing: bool | Offload
    length: int
    is_packed: bool = False
    median: int | None = None
    auto_keys: tuple[str, ...] = ()
    stored: StoredQuantization | None = None
    texts: int = 1
    least_micro_batch: int = 1
    keeps_start: bool = False
    tiles_mlp: bool = False
    smooths: bool = False
    attention: AttentionName = "auto"

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        longest: int | None = None,
        median: int | None = None,
        stored: StoredQuantization | None = None,
        labels: int | None = None,
    ) -> "Setup":
        """The setup of a recipe.

        Args:
            longest: tokens of the longest record, if known; without packing no batch is longer.
            median: tokens of the median record, if known.
            stored: how the model's files quantize the base, if they do; the recipe is the one as loaded.
            labels: of the records, if known; a classifier has at least two.
        """
        quantization, training, data = recipe.quantization, recipe.training, recipe.data
        micro_batch = training.per_device_train_batch_size
        is_auto = micro_batch == AUTO
        length = data.max_length
        if longest is not None and not data.packing:
            length = min(length, max(longest, MIN_LENGTH))
        return cls(
            adapter=trained_settings(recipe, labels),
            method=quantization.method,
            double_quant=quantization.double_quant,
            compute_dtype=quantization.compute_dtype,
            optimizer=training.optim,
            micro_batch=recipe.least_micro_batch if micro_batch == AUTO else micro_batch,
            accumulation=training.effective_batch // recipe.least_micro_batch
            if is_auto
            else training.gradient_accumulation_steps,
            checkpointing=True if training.gradient_checkpointing == AUTO else training.gradient_checkpointing,
            length=length,
            is_packed=data.packing,
            median=median,
            auto_keys=auto_keys(training),
            stored=stored,
            texts=recipe.objective.spec.texts_per_record,
            smooths=recipe.objective.spec.smooths_tokens and recipe.objective.label_smoothing > 0,
            least_micro_batch=recipe.objective.least_micro_batch,
            tiles_mlp=training.tiled_mlp,
            keeps_start=recipe.objective.spec.has_reference and recipe.adapter.continue_from is not None,
            attention=recipe.model.attn_implementation,
        )

    @property
    def effective_batch(self) -> int:
        """Records per optimizer step on one GPU."""
        return self.micro_batch * self.accumulation

    def get(self, path: str) -> Any:
        """The value at a dotted key of the recipe, such as ``adapter.r``."""
        if path.startswith(_ADAPTER):
            return getattr(self.adapter, path.removeprefix(_ADAPTER))
        return getattr(self, _FIELDS[path])

    def varied(self, changes: Mapping[str, Any]) -> "Setup":
        """The setup with other values at dotted keys of the recipe.

        Raises:
            WorkbenchError: these values cannot be combined.
        """
        own = {_FIELDS[path]: value for path, value in changes.items() if not path.startswith(_ADAPTER)}
        adapter = self.adapter.varied(
            {path.removeprefix(_ADAPTER): value for path, value in changes.items() if path.startswith(_ADAPTER)}
        )
        adapter = replace(adapter, trains_b_only=own.get("optimizer", self.optimizer) == LORA_FA)
        setup = replace(self, adapter=adapter, **own)
        if self.stored and any(getattr(setup, name) != getattr(self, name) for name in _QUANTIZATION):
            raise WorkbenchError(
                f"The base is stored as {self.stored.label} and cannot be quantized otherwise.",
                "Take the unquantized model that it was made from.",
                kind="stored_quantization",
            )
        if refusal := method_of(adapter.method).refusal_on(adapter, setup.method):
            raise WorkbenchError(f"{refusal.path}: {refusal.reason}.", f"{refusal.cure.capitalize()}.", kind="recipe")
        return setup

    def applied_to(self, recipe: Recipe) -> ResolvedRecipe:
        """The recipe, with its ``auto`` settings and its record length replaced by this setup's values."""
        chosen = {path: self.get(path) for path in auto_keys(recipe.training)}
        return with_max_length(resolved(recipe, chosen), self.length)


def trained_settings(recipe: Recipe, labels: int | None = None) -> AdapterSettings:
    """The settings of the adapter that a recipe trains.

    Args:
        labels: of the records, if known.
    """
    head, training = head_outputs(recipe, labels), recipe.training
    return AdapterSettings.of(recipe.trained_adapter, head, trains_b_only=training.trains_b_only)


def head_outputs(recipe: Recipe, labels: int | None = None) -> int:
    """Outputs of the head that a recipe trains with its adapter; 0 if it trains none.

    Args:
        labels: of the records, if known.
    """
    return {"vocabulary": 0, "score": 1, "labels": labels or 2}[recipe.objective.spec.head]
