"""Defines the recipe, the pydantic model that configures a run: every setting with its default, bounds and help text.

The same recipe is the form on screen, the YAML preset and the input of the command line; it is priced, run and
exported. Settings have the names of the libraries (PEFT's ``LoraConfig``, bitsandbytes, transformers'
``TrainingArguments``). A recipe is immutable: :func:`workbench.recipe.text.edit` returns a changed copy. Reading and
writing YAML is in :mod:`workbench.recipe.text`.
"""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BUNDLED_DATA = "first-mate"
RANK_STEPS = (4, 8, 16, 32, 64, 128, 256)

Auto = Literal["auto"]
AUTO: Auto = "auto"
"""The machine chooses the value, see :mod:`workbench.estimate.fastest`. :mod:`workbench.recipe.resolved` has recipes in
which that is done."""

T = TypeVar("T")


def setting(
    default: T,
    text: str,
    *,
    up: str = "",
    unit: str = "",
    steps: tuple[float, ...] = (),
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    min_length: int | None = None,
    pattern: str | None = None,
) -> T:
    """A pydantic field with the help that the form shows.

    Args:
        text: what the value means, in one sentence.
        up: the effect of a higher value.
        unit: the unit of the value; empty for a plain number or a choice.
        steps: values that the arrow keys step through.
        ge, gt, le, lt, min_length, pattern: bounds, as in pydantic's ``Field``.
    """
    # Bounds that are None are left out: pydantic would try to apply them to types that have no such bound.
    given = {"ge": ge, "gt": gt, "le": le, "lt": lt, "min_length": min_length, "pattern": pattern}
    bounds: dict[str, Any] = {name: bound for name, bound in given.items() if bound is not None}
    extra: dict[str, Any] = {"unit": unit, "up": up, "steps": list(steps)}
    field: T
    if isinstance(default, list | dict):
        # A new list or dict for every recipe.
        field = Field(default_factory=default.copy, description=text, json_schema_extra=extra, **bounds)
    else:
        field = Field(default, description=text, json_schema_extra=extra, **bounds)
    return field


class Section(BaseModel):
    """A part of the recipe. Unknown keys are errors, types are not coerced, values cannot be changed."""

    # protected_namespaces: `model_…` names are pydantic's by default, and `model` is ours.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=(), allow_inf_nan=False)


class ModelSection(Section):
    source: str = setting(DEFAULT_MODEL, "Base model: a Hugging Face id, a local folder or a GGUF file.", min_length=1)
    revision: str | None = setting(None, "Branch, tag or commit of the hub repository. Empty: main.")
    trust_remote_code: bool = setting(
        False, "Allow the repository's own Python code to run on this machine. Enable it only after reading that code."
    )
    resize_embeddings: bool = setting(
        False,
        "If the tokenizer has more tokens than the model's embedding has rows: add the rows and train them, with the "
        "rest of the embedding frozen.",
    )


QuantMethod = Literal["nf4", "fp4", "int8", "none"]


class QuantizationSection(Section):
    method: QuantMethod = setting(
        "nf4",
        "Quantization of the frozen base: nf4 or fp4 (4-bit, QLoRA), int8 (8-bit), none (16-bit LoRA).",
    )
    double_quant: bool = setting(
        True, "Quantize the quantization constants too: saves about 0.37 bit per parameter at almost no cost in speed."
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = setting(
        "auto",
        "Dtype of matrix multiplications. auto: bfloat16 if the device supports it, float16 on "
        "older GPUs (such as a T4), float32 on a CPU.",
    )


InitMethod = Literal["gaussian", "pissa", "olora", "orthogonal"]
NEEDS_UNQUANTISED_BASE = ("pissa", "olora")
"""Values of ``init_lora_weights`` that start from the base's own weights."""


class AdapterSection(Section):
    r: int = setting(
        16,
        "Rank of ΔW = B·A. 8–32 suits most tasks.",
        up="more capacity; parameters, file and optimizer memory grow in proportion",
        steps=RANK_STEPS,
        ge=1,
        le=8192,
    )
    lora_alpha: int = setting(
        32,
        "Adapter scaling: ΔW is multiplied by lora_alpha / r (/ √r with rsLoRA). Default 2·r until set.",
        up="stronger updates, similar to a higher learning rate",
        steps=(8, 16, 32, 64, 128, 256, 512),
        ge=1,
        le=65536,
    )
    lora_dropout: float = setting(
        0.05,
        "Dropout probability on the adapter's inputs during training. Until set: 0 where PEFT supports none (experts "
        "that are stored as one weight).",
        up="less overfitting on small data, slower learning",
        steps=(0.0, 0.05, 0.1, 0.2),
        ge=0.0,
        lt=1.0,
    )
    target_modules: str | list[str] = setting(
        "all-linear",
        "Layers that get an adapter: all-linear, a list of names such as [q_proj, v_proj], or a regular expression.",
        up="more layers: more capacity and proportional cost",
        min_length=1,
    )
    bias: Literal["none", "all", "lora_only"] = setting(
        "none", "Biases of the base to train as well. all or lora_only changes the base even when the adapter is off."
    )
    use_rslora: bool = setting(False, "rsLoRA: scale by lora_alpha / √r, which stabilizes high ranks (64 and up).")
    use_dora: bool = setting(
        False, "DoRA: train magnitude and direction separately. Often better at low rank; slower, slightly more memory."
    )
    init_lora_weights: bool | InitMethod = setting(
        True,
        "Initialization of A and B. true: Kaiming A, zero B. gaussian: normal A. pissa, olora: "
        "from the base's own "
        "singular vectors or QR factors (unquantized base only). orthogonal: orthogonal A and B.",
    )
    modules_to_save: list[str] | None = setting(
        None, "Extra modules to train fully and save with the adapter, such as lm_head or embed_tokens. Costly."
    )
    layers_to_transform: list[int] | None = setting(None, "Layer indices that get adapters. Empty: all layers.")
    rank_pattern: dict[str, int] = setting({}, "Per-module ranks: module name or pattern → r.")
    alpha_pattern: dict[str, int] = setting({}, "Per-module alphas: module name or pattern → lora_alpha.")

    @model_validator(mode="after")
    def _link_alpha(self) -> Self:
        # `__dict__` bypasses both the frozen model and `model_fields_set`, so that the link survives dump and reload.
        if self.alpha_is_linked:
            self.__dict__["lora_alpha"] = 2 * self.r
        return self

    @property
    def dropout_is_default(self) -> bool:
        """True as long as ``lora_dropout`` has not been set: adapters that cannot have dropout then have none."""
        return "lora_dropout" not in self.model_fields_set

    @property
    def alpha_is_linked(self) -> bool:
        """True while ``lora_alpha`` follows 2·r, that is, as long as it has not been set."""
        return "lora_alpha" not in self.model_fields_set

    @property
    def scaling(self) -> float:
        """The factor on B·A: alpha / r (Hu et al. 2021), alpha / √r with rsLoRA (Kalajdzievski 2023)."""
        return float(self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r))


MIN_LENGTH = 8
"""The smallest value of ``data.max_length``, in tokens."""
MAX_MICRO_BATCHES = 65536
"""The largest value of ``training.gradient_accumulation_steps`` and ``training.effective_batch_size``."""


DataFormat = Literal["auto", "instruction", "prompt", "question", "messages", "sharegpt", "text"]


class SourceEntry(Section):
    """One source in the list form of ``data.source``. What it leaves out is taken from the data section."""

    source: str = Field(min_length=1)
    weight: float = Field(1.0, gt=0, le=1000)
    split: str | None = Field(None, min_length=1)
    columns: dict[str, str] | None = None
    format: DataFormat | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_only(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _without_empty_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields: dict[str, object] = handler(self)
        return {name: value for name, value in fields.items() if value is not None}


def _form_of_source(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "text"


DataSource = Annotated[
    Annotated[str, Field(min_length=1), Tag("text")] | Annotated[list[SourceEntry], Field(min_length=1), Tag("list")],
    Discriminator(_form_of_source),
]
"""``data.source``: text, or a list of sources to interleave; see :mod:`workbench.recipe.data_sources`."""


class DataSection(Section):
    source: DataSource = setting(
        BUNDLED_DATA,
        "Dataset: a bundled name, a local file or folder, or a Hugging Face dataset. Several: a.jsonl*0.5 + b.jsonl, "
        "or a list to interleave: [{source: a.jsonl, weight: 2}, {source: b.jsonl}].",
    )
    stopping: Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"] = setting(
        "first_exhausted",
        "When a list of sources ends: with the first exhausted one, when all have been read (smaller ones repeat), or "
        "when all have been read once.",
    )
    format: DataFormat = setting("auto", "Record format. auto: detect it from the column names.")
    columns: dict[str, str] = setting(
        {},
        "Column mapping if auto-detection fails: prompt, input, reply, reasoning, system, history, messages, "
        "tools or text → column.",
    )
    ignore: list[str] = setting(
        [],
        "Fields of records that may stay unused without a question before the run, such as category.",
    )
    malformed: Literal["stop", "skip"] = setting(
        "stop",
        "On bad lines: stop (fail with the line number) or skip (and count). Records without a "
        "response are always skipped and counted.",
    )
    split: str = setting("train", "Split of a Hugging Face dataset. Slices are allowed: train[:2000].", min_length=1)
    eval_fraction: float = setting(
        0.1,
        "Fraction of the records held out for evaluation if the dataset has no eval split.",
        up="more precise evaluation, fewer training records",
        steps=(0.0, 0.05, 0.1, 0.2),
        ge=0.0,
        le=0.5,
    )
    template: str = setting(
        "auto",
        "Chat template. auto: the model's own. Or one of instruction-response, user-assistant, alpaca, chatml, "
        "chatml-tools, plain.",
        min_length=1,
    )
    system: str | None = setting(None, "System prompt for records without one.")
    max_length: int = setting(
        1024,
        "Records are truncated at this many tokens.",
        up="fewer records are truncated; activation memory grows in proportion",
        unit="tokens",
        steps=(128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
        ge=MIN_LENGTH,
        le=10_000_000,
    )
    packing: bool = setting(
        False, "Pack several records into each sequence of max_length. The micro-batch then counts sequences."
    )
    completion_only: bool = setting(True, "Compute the loss on the response only, not on the prompt.")
    responses: Literal["all", "last"] = setting(
        "all", "Which responses of a conversation are trained: all, or only the last one."
    )
    reasoning: Literal["train", "mask", "drop"] = setting(
        "train",
        "Reasoning in responses: train it, mask it (kept in the text, no loss on it), or drop it from the text.",
    )


ObjectiveKind = Literal["sft", "dpo"]
PreferenceLoss = Literal[
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "nca_pair", "sppo_hard", "apo_zero", "apo_down"
]


class ObjectiveSection(Section):
    """What a run minimizes. A recipe without this section is supervised."""

    kind: ObjectiveKind = setting(
        "sft",
        "sft: supervised, learn the responses. dpo: learn to prefer the chosen response of each pair to the rejected "
        "one, compared with the base without the adapter (the reference). Runs without dropout, as in TRL.",
    )
    beta: float = setting(
        0.1,
        "Used with dpo only: how closely the adapter stays to the reference. Rewards are beta × log-ratio.",
        up="stays closer to the reference",
        steps=(0.01, 0.05, 0.1, 0.2, 0.5, 1.0),
        gt=0.0,
        le=100.0,
    )
    loss_type: PreferenceLoss = setting(
        "sigmoid",
        "Used with dpo only: the loss of a pair, by TRL's names. sigmoid: DPO. sigmoid_norm: per token. ipo: a "
        "margin of 1 / (2 beta) per token. hinge: SLiC. robust: some labels are wrong. apo_zero, apo_down: anchored.",
    )
    label_smoothing: float = setting(
        0.0,
        "Used with the loss robust only: probability that a pair is labeled the wrong way round.",
        steps=(0.0, 0.05, 0.1, 0.2),
        ge=0.0,
        lt=0.5,
    )

    @property
    def is_preference(self) -> bool:
        """Whether it trains on pairs of a chosen and a rejected response."""
        return self.kind == "dpo"


class TrainingSection(Section):
    num_train_epochs: float = setting(
        1.0, "Passes over the training records.", up="better fit, then overfitting", unit="epochs",
        steps=(1, 2, 3, 5, 10), gt=0, le=10_000,
    )  # fmt: skip
    max_steps: int = setting(
        -1, "Maximum optimizer steps. -1: unlimited (use epochs).", unit="steps",
        steps=(-1, 50, 100, 200, 500, 1000), ge=-1, le=100_000_000,
    )  # fmt: skip
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=65536)] | Auto = setting(
        4, "Micro-batch per GPU. auto: the fastest size that fits, within the effective batch size.",
        unit="records", steps=(1, 2, 4, 8, 16, 32, 64),
        up="faster until the GPU is full; activation memory grows in proportion",
    )  # fmt: skip
    gradient_accumulation_steps: int = setting(
        4, "Micro-batches summed into one optimizer step: effective batch = micro-batch × this. "
        "Derived from the effective batch if the micro-batch is auto.",
        up="less gradient noise at no memory cost, fewer steps per epoch", unit="micro-batches",
        steps=(1, 2, 4, 8, 16, 32), ge=1, le=MAX_MICRO_BATCHES,
    )  # fmt: skip
    effective_batch_size: int = setting(
        16, "Records per optimizer step and GPU. Used only with micro-batch auto.",
        up="less gradient noise at no memory cost, fewer steps per epoch", unit="records",
        steps=(4, 8, 16, 32, 64, 128), ge=1, le=MAX_MICRO_BATCHES,
    )  # fmt: skip
    learning_rate: float = setting(
        2e-4, "Peak learning rate.", up="faster learning, then divergence",
        steps=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3), gt=0, le=1,
    )  # fmt: skip
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"] = (
        setting("cosine", "Learning rate schedule after warm-up.")
    )
    warmup_ratio: float = setting(
        0.03, "Fraction of the steps used to warm up to the peak learning rate.", up="slower start",
        steps=(0.0, 0.03, 0.05, 0.1), ge=0, le=1,
    )  # fmt: skip
    weight_decay: float = setting(
        0.0, "Weight decay on the adapter's weights.", up="less overfitting, slower learning",
        steps=(0.0, 0.001, 0.01, 0.1), ge=0, le=1,
    )  # fmt: skip
    max_grad_norm: float = setting(
        1.0, "Clip the gradient norm at this value. 0: no clipping.", up="larger updates are allowed",
        steps=(0.0, 0.3, 1.0), ge=0, le=1e6,
    )  # fmt: skip
    router_aux_loss: float = setting(
        0.0, "Mixture of experts: weight of the router's load-balancing loss in the gradient. 0: not added. The loss "
        "curve never includes it.", up="experts are used more evenly, less weight on the records",
        steps=(0.0, 0.001, 0.01, 0.02), ge=0, le=10,
    )  # fmt: skip
    optim: Literal[
        "adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor", "sgd"
    ] = setting(
        "adamw_torch_fused",
        "Optimizer. AdamW keeps 8 bytes per trained parameter, the 8-bit variants 2; paged "
        "variants spill to host memory.",
    )
    gradient_checkpointing: bool | Auto = setting(
        AUTO,
        "Recompute activations in the backward pass: far less memory for about a quarter more time. "
        "auto: off if the step fits without it.",
    )
    torch_compile: bool = setting(
        False,
        "Compile the layers before the first step. Takes half a minute to several minutes; pays "
        "off on long runs. The memory estimate is for uncompiled steps.",
    )
    kernels: Literal["none", "liger", "hub"] = setting(
        "none",
        "Fused GPU kernels for norms and gated MLPs, if installed. They save a little memory, "
        "not included in the estimate. hub: downloads and runs compiled code; use only if you "
        "trust it.",
    )
    logging_steps: int = setting(
        1, "Log every this many optimizer steps.", unit="steps", steps=(1, 5, 10, 50), ge=1, le=1_000_000
    )
    eval_steps: int = setting(
        0, "Evaluate every this many optimizer steps. 0: only at the end.", unit="steps",
        steps=(0, 10, 50, 100, 500), ge=0, le=100_000_000,
    )  # fmt: skip
    save_steps: int = setting(
        100, "Save a checkpoint every this many optimizer steps. 0: only at the end.", unit="steps",
        steps=(0, 20, 50, 100, 500), ge=0, le=100_000_000,
    )  # fmt: skip
    save_total_limit: int = setting(
        2,
        "Checkpoints to keep; older ones are deleted.",
        up="more checkpoints, more disk space",
        unit="checkpoints",
        ge=1,
        le=10_000,
    )
    early_stopping_patience: int = setting(
        0, "Early stopping after this many evaluations without a better held-out loss. 0: off.",
        unit="evaluations", steps=(0, 2, 3, 5), ge=0, le=10_000,
    )  # fmt: skip
    early_stopping_min_delta: float = setting(
        0.0, "Minimum decrease of the held-out loss that counts as better.", ge=0, le=100
    )
    keep: Literal["last", "best"] = setting("last", "Adapter to keep: last, or best held-out loss (needs eval_steps).")
    non_finite: Literal["stop", "skip"] = setting(
        "stop", "On a non-finite loss or gradient: stop the run, or skip the step."
    )
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = setting(
        [], "Also log metrics to tensorboard (in the run folder), wandb or trackio, if installed."
    )
    seed: int = setting(42, "Random seed: record order, dropout, initialization of A.", ge=0, le=2**32 - 1)

    @property
    def effective_batch(self) -> int:
        """Records per optimizer step on one GPU."""
        if self.per_device_train_batch_size == AUTO:
            return self.effective_batch_size
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def largest_micro_batch(self) -> int:
        """The micro-batch size; if it is ``auto``, the largest that can be chosen."""
        if self.per_device_train_batch_size == AUTO:
            return self.effective_batch_size
        return self.per_device_train_batch_size


class OutputSection(Section):
    name: str = setting("run", "Run name; a number is appended.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    dir: str | None = setting(None, "Parent folder of the run folder. Empty: the default runs folder.")


EXCLUDED = "excluded"
"""Type of the validation error for settings that exclude each other. Its context holds path, given and allowed."""


def _excluded(path: str, given: str, allowed: str) -> PydanticCustomError:
    """The validation error for a setting that another one excludes."""
    context = {"path": path, "given": given, "allowed": allowed}
    return PydanticCustomError(EXCLUDED, "{path}: {given}; {allowed}", context)


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
        init = self.adapter.init_lora_weights
        if init in NEEDS_UNQUANTISED_BASE and self.quantization.method != "none":
            raise _excluded(
                "adapter.init_lora_weights",
                f"{init} needs an unquantized base",
                "set quantization.method to none, or init_lora_weights to true",
            )
        self._check_objective()
        return self

    def _check_objective(self) -> None:
        """Refuse what preference training cannot use: its reference is the base with the adapter switched off."""
        objective, adapter = self.objective, self.adapter
        if not objective.is_preference:
            return
        if adapter.init_lora_weights in NEEDS_UNQUANTISED_BASE:
            raise _excluded(
                "adapter.init_lora_weights",
                f"{adapter.init_lora_weights} moves weights of the base to the adapter, so that the base without it "
                f"cannot be the reference of {objective.kind}",
                "set it to true, gaussian or orthogonal",
            )
        if adapter.bias != "none":
            raise _excluded(
                "adapter.bias",
                f"{adapter.bias} trains biases of the base, which is the reference of {objective.kind}",
                "set it to none",
            )
        if self.data.packing:
            raise _excluded("data.packing", f"{objective.kind} does not pack pairs of responses", "set it to false")
        if not self.data.completion_only:
            raise _excluded(
                "data.completion_only",
                f"{objective.kind} compares responses to the same prompt, so the prompt cannot be trained",
                "set it to true",
            )
        if self.data.format != "auto":
            raise _excluded(
                "data.format",
                f"{self.data.format} has one response per prompt; {objective.kind} needs pairs",
                "set it to auto, and name columns other than chosen and rejected in data.columns",
            )

    @property
    def trained_adapter(self) -> AdapterSection:
        """The adapter as it is trained: preference training runs without dropout, as in TRL."""
        if not self.objective.is_preference or not self.adapter.lora_dropout:
            return self.adapter
        return self.adapter.model_copy(update={"lora_dropout": 0.0})

    def as_dict(self) -> dict[str, dict[str, object]]:
        """The values by section and name; :func:`workbench.recipe.text.parse` turns them back into an equal recipe.

        A linked ``lora_alpha`` is left out, so that it stays linked, and a ``lora_dropout`` that nobody has set. So is
        the default objective: recipes are written and hashed as before there was another one.
        """
        data: dict[str, dict[str, object]] = self.model_dump()
        if self.objective == ObjectiveSection():
            del data["objective"]
        if self.adapter.alpha_is_linked:
            del data["adapter"]["lora_alpha"]
        if self.adapter.dropout_is_default:
            del data["adapter"]["lora_dropout"]
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
