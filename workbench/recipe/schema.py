"""The one configuration: form on screen, YAML preset, CLI input, what is priced, what is run, what is exported.

Names are those of the libraries (PEFT's ``LoraConfig``, bitsandbytes, transformers' ``TrainingArguments``). A recipe is
immutable; :func:`workbench.recipe.text.edit` gives a new one. Text in and out is :mod:`workbench.recipe.text`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BUNDLED_DATA = "first-mate"
RANK_STEPS = (4, 8, 16, 32, 64, 128, 256)

Auto = Literal["auto"]
AUTO: Auto = "auto"
"""Left to the machine: :mod:`workbench.estimate.fastest` decides, and :mod:`workbench.recipe.resolved` holds recipes in
which that is done."""


def knob(
    default: Any,
    text: str,
    *,
    up: str = "",
    unit: str = "",
    steps: tuple[float, ...] = (),
    **bounds: Any,
) -> Any:
    """A field with the help that the form shows.

    Args:
        text: what the value means, in one sentence.
        up: what turning it up does.
        unit: of the value; empty for a plain number or a choice.
        steps: values that the arrow keys move along.
        bounds: ``ge``, ``gt``, ``le``, ``lt``, ``min_length`` as pydantic takes them.
    """
    extra: dict[str, Any] = {"unit": unit, "up": up, "steps": list(steps)}
    if isinstance(default, list | dict):
        return Field(
            default_factory=lambda: type(default)(default), description=text, json_schema_extra=extra, **bounds
        )
    return Field(default, description=text, json_schema_extra=extra, **bounds)


class Section(BaseModel):
    """A part of the recipe: unknown keys are errors, types are not coerced, values do not change."""

    # protected_namespaces: `model_…` names are pydantic's by default, and `model` is ours.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=(), allow_inf_nan=False)


class ModelSection(Section):
    source: str = knob(
        DEFAULT_MODEL, "The base model: a Hugging Face id, a local folder, or a GGUF file.", min_length=1
    )
    revision: str | None = knob(None, "Branch, tag or commit of the hub repository; empty for its main branch.")
    trust_remote_code: bool = knob(
        False, "Let the repository run its own Python code on this machine. Leave off unless you have read that code."
    )


QuantMethod = Literal["nf4", "fp4", "int8", "none"]


class QuantizationSection(Section):
    method: QuantMethod = knob(
        "nf4",
        "How the frozen base is stored: nf4 or fp4 in 4 bits (QLoRA), int8 in 8 bits, none in 16 bits (LoRA).",
    )
    double_quant: bool = knob(
        True, "Quantise the 4-bit constants a second time: saves about 0.37 bit a parameter, costs next to no time."
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = knob(
        "auto",
        "Type that matrices are multiplied in. auto: bfloat16 where the device computes it, "
        "float16 on older GPUs (a T4 has no bf16 units), float32 on a CPU.",
    )


InitMethod = Literal["gaussian", "pissa", "olora", "orthogonal"]


class AdapterSection(Section):
    r: int = knob(
        16,
        "Rank of ΔW = B·A. 8–32 suits most tasks.",
        up="learns more; parameters, file and optimizer memory grow in proportion",
        steps=RANK_STEPS,
        ge=1,
        le=8192,
    )
    lora_alpha: int = knob(
        32,
        "Strength of the adapter: ΔW is scaled by lora_alpha / r (/ √r with rsLoRA). Follows 2·r until set.",
        up="the adapter changes the model more per step, like a higher learning rate",
        steps=(8, 16, 32, 64, 128, 256, 512),
        ge=1,
        le=65536,
    )
    lora_dropout: float = knob(
        0.05,
        "Share of the adapter's inputs set to zero at random while training.",
        up="less overfitting on small data, slower learning",
        steps=(0.0, 0.05, 0.1, 0.2),
        ge=0.0,
        lt=1.0,
    )
    target_modules: str | list[str] = knob(
        "all-linear",
        "Which layers get an adapter: all-linear, a list of names such as [q_proj, v_proj], or a regular expression.",
        up="more layers learn more and cost in proportion",
        min_length=1,
    )
    bias: Literal["none", "all", "lora_only"] = knob(
        "none", "Which biases of the base are trained too. Anything but none changes the base when the adapter is off."
    )
    use_rslora: bool = knob(False, "Scale by lora_alpha / √r, which keeps high ranks (64 and up) learning.")
    use_dora: bool = knob(
        False, "DoRA: learn magnitude and direction apart. Often better at low rank; slower, a little more memory."
    )
    init_lora_weights: bool | InitMethod = knob(
        True,
        "Start of A and B. true: Kaiming A, zero B. gaussian: normal A. pissa, olora: from the base's own "
        "singular vectors or QR factors (unquantised base only). orthogonal: orthogonal A and B.",
    )
    modules_to_save: list[str] | None = knob(
        None, "Modules trained and saved whole beside the adapter, such as lm_head or embed_tokens. Costly."
    )
    layers_to_transform: list[int] | None = knob(
        None, "Indices of the layers that get adapters; empty for all of them."
    )
    rank_pattern: dict[str, int] = knob({}, "Ranks that differ: module name or pattern → r.")
    alpha_pattern: dict[str, int] = knob({}, "Alphas that differ: module name or pattern → lora_alpha.")

    @model_validator(mode="after")
    def _link_alpha(self) -> Self:
        # Written past the frozen guard and past `model_fields_set`, so that the link survives a dump and a reload.
        if self.alpha_is_linked:
            self.__dict__["lora_alpha"] = 2 * self.r
        return self

    @property
    def alpha_is_linked(self) -> bool:
        """True while ``lora_alpha`` follows 2·r, until somebody sets it."""
        return "lora_alpha" not in self.model_fields_set

    @property
    def scaling(self) -> float:
        """The factor on B·A: alpha / r (Hu et al. 2021), alpha / √r with rsLoRA (Kalajdzievski 2023)."""
        return float(self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r))


SHORTEST = 8
"""The least that ``data.max_length`` may be, in tokens."""


class DataSection(Section):
    source: str = knob(
        BUNDLED_DATA,
        "The records: a bundled set's name, a local file or folder, or a Hugging Face data set.",
        min_length=1,
    )
    format: Literal["auto", "instruction", "prompt", "question", "messages", "sharegpt", "text"] = knob(
        "auto", "Shape of a record; auto reads it from the column names."
    )
    columns: dict[str, str] = knob(
        {},
        "Columns named by hand where their names say nothing: prompt, input, reply, system, messages or text → column.",
    )
    malformed: Literal["stop", "skip"] = knob(
        "stop",
        "A line that cannot be read: stop and say where it is, or skip it and count it. "
        "Records without a reply are always skipped and counted.",
    )
    split: str = knob("train", "Split of a Hugging Face data set, slices allowed: train[:2000].", min_length=1)
    eval_fraction: float = knob(
        0.1,
        "Share of the records held out for evaluation when the source has no held-out part of its own.",
        up="surer evaluation, fewer records to learn from",
        steps=(0.0, 0.05, 0.1, 0.2),
        ge=0.0,
        le=0.5,
    )
    template: str = knob(
        "auto",
        "How a conversation becomes text: auto (the model's own chat template), or a named one: "
        "instruction-response, user-assistant, alpaca, chatml, plain.",
        min_length=1,
    )
    system: str | None = knob(None, "System prompt for records that bring none.")
    max_length: int = knob(
        1024,
        "Records are cut at this many tokens.",
        up="longer records are kept whole; activation memory grows in proportion",
        unit="tokens",
        steps=(128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
        ge=SHORTEST,
        le=10_000_000,
    )
    packing: bool = knob(
        False, "Fill each sequence with several records: steps of even size. The micro-batch then counts sequences."
    )
    completion_only: bool = knob(True, "Loss on the reply only, not on the prompt.")


class TrainingSection(Section):
    num_train_epochs: float = knob(
        1.0, "Passes over the records.", up="learns the set better, then by heart", unit="epochs",
        steps=(1, 2, 3, 5, 10), gt=0, le=10_000,
    )  # fmt: skip
    max_steps: int = knob(
        -1, "Stop after this many optimizer steps; -1 leaves it to the epochs.", unit="steps",
        steps=(-1, 50, 100, 200, 500, 1000), ge=-1, le=100_000_000,
    )  # fmt: skip
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=65536)] | Auto = knob(
        4, "Micro-batch: records a GPU computes at once. auto: as many as are fastest and fit, under the wanted "
        "effective batch.", unit="records", steps=(1, 2, 4, 8, 16, 32, 64),
        up="faster until the GPU is full; activation memory grows in proportion",
    )  # fmt: skip
    gradient_accumulation_steps: int = knob(
        4, "Micro-batches summed into one optimizer step: effective batch = micro-batch × this. "
        "Follows from the effective batch where the micro-batch is auto.",
        up="smoother steps at no memory, fewer of them an epoch", unit="micro-batches",
        steps=(1, 2, 4, 8, 16, 32), ge=1, le=65536,
    )  # fmt: skip
    effective_batch_size: int = knob(
        16, "Records an optimizer step that are wanted on one GPU; counts only where the micro-batch is auto.",
        up="smoother steps at no memory, fewer of them an epoch", unit="records",
        steps=(4, 8, 16, 32, 64, 128), ge=1, le=65536,
    )  # fmt: skip
    learning_rate: float = knob(
        2e-4, "Peak learning rate.", up="learns faster, then diverges",
        steps=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3), gt=0, le=1,
    )  # fmt: skip
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"] = (
        knob("cosine", "How the learning rate falls from its peak.")
    )
    warmup_ratio: float = knob(
        0.03, "Share of the steps in which the learning rate rises to its peak.", up="gentler start",
        steps=(0.0, 0.03, 0.05, 0.1), ge=0, le=1,
    )  # fmt: skip
    weight_decay: float = knob(
        0.0, "Pull of the adapter's weights towards zero.", up="less overfitting, slower learning",
        steps=(0.0, 0.001, 0.01, 0.1), ge=0, le=1,
    )  # fmt: skip
    max_grad_norm: float = knob(
        1.0, "Gradients longer than this are shortened to it; 0 turns it off.", up="larger jumps are allowed",
        steps=(0.0, 0.3, 1.0), ge=0, le=1e6,
    )  # fmt: skip
    optim: Literal[
        "adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor", "sgd"
    ] = knob(
        "adamw_torch_fused",
        "The optimizer. AdamW keeps 8 bytes a trained parameter, its 8-bit forms 2; paged ones spill to host memory.",
    )
    gradient_checkpointing: bool | Auto = knob(
        AUTO,
        "Recompute activations in the backward pass: far less memory for about a quarter more time. "
        "auto: off where the step fits without it.",
    )
    torch_compile: bool = knob(
        False,
        "Compile the layers before the first step: half a minute to minutes that faster steps must earn back. "
        "The memory shown is that of uncompiled steps.",
    )
    kernels: Literal["none", "liger", "hub"] = knob(
        "none",
        "Fused GPU kernels for norms and gated MLPs, where installed. They save a little memory, which the estimate "
        "does not count. hub: compiled code is downloaded and run here; leave off unless you trust it.",
    )
    logging_steps: int = knob(
        1, "Optimizer steps between two points of the curve.", unit="steps", steps=(1, 5, 10, 50), ge=1, le=1_000_000
    )
    eval_steps: int = knob(
        0, "Optimizer steps between evaluations on the held-out part; 0 evaluates only at the end.", unit="steps",
        steps=(0, 10, 50, 100, 500), ge=0, le=100_000_000,
    )  # fmt: skip
    save_steps: int = knob(
        100, "Optimizer steps between checkpoints; 0 saves only at the end.", unit="steps",
        steps=(0, 20, 50, 100, 500), ge=0, le=100_000_000,
    )  # fmt: skip
    save_total_limit: int = knob(
        2,
        "Checkpoints kept; older ones are removed.",
        up="more to go back to, more disk",
        unit="checkpoints",
        ge=1,
        le=10_000,
    )
    early_stopping_patience: int = knob(
        0, "Evaluations in a row without a better held-out loss after which the run ends; 0 never ends it early.",
        unit="evaluations", steps=(0, 2, 3, 5), ge=0, le=10_000,
    )  # fmt: skip
    early_stopping_min_delta: float = knob(
        0.0, "A held-out loss is better when it is lower than the best by more than this.", ge=0, le=100
    )
    keep: Literal["last", "best"] = knob(
        "last", "Which adapter the run leaves: the last one, or that of the best evaluation (needs eval_steps)."
    )
    non_finite: Literal["stop", "skip"] = knob(
        "stop", "A step whose loss or gradient is no finite number: stop before it does harm, or leave it out."
    )
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = knob(
        [], "Who else is told of loss and speed: tensorboard (in the run's folder), wandb, trackio; each if installed."
    )
    seed: int = knob(42, "Start of all randomness: order of records, dropout, A's first values.", ge=0, le=2**32 - 1)

    @property
    def effective_batch(self) -> int:
        """Records an optimizer step on one GPU."""
        if self.per_device_train_batch_size == AUTO:
            return self.effective_batch_size
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def largest_micro_batch(self) -> int:
        """The micro-batch, or the most that it may become where it is left to the machine."""
        if self.per_device_train_batch_size == AUTO:
            return self.effective_batch_size
        return self.per_device_train_batch_size


class OutputSection(Section):
    name: str = knob("run", "Name of the run; a number is added.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    dir: str | None = knob(None, "Folder that gets the run folder; empty for the workbench's own.")


EXCLUDED = "excluded"
"""Type of the validation error for settings that exclude each other; its context has path, given and allowed."""


class Recipe(Section):
    """Everything that decides a run."""

    model: ModelSection = Field(default_factory=ModelSection)
    quantization: QuantizationSection = Field(default_factory=QuantizationSection)
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    data: DataSection = Field(default_factory=DataSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    output: OutputSection = Field(default_factory=OutputSection)

    @model_validator(mode="after")
    def _settings_that_exclude_each_other(self) -> Self:
        init = self.adapter.init_lora_weights
        if init in ("pissa", "olora") and self.quantization.method != "none":
            raise PydanticCustomError(
                EXCLUDED,
                "{path}: {given}; {allowed}",
                {
                    "path": "adapter.init_lora_weights",
                    "given": f"{init} starts from the base's own weights and needs them unquantised",
                    "allowed": "set quantization.method to none, or init_lora_weights to true",
                },
            )
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain data without a linked ``lora_alpha``; :func:`workbench.recipe.text.parse` gives an equal recipe."""
        data = self.model_dump()
        if self.adapter.alpha_is_linked:
            del data["adapter"]["lora_alpha"]
        return data

    def get(self, path: str) -> Any:
        """The value at a dotted path such as ``adapter.r``."""
        section, _, name = path.partition(".")
        return getattr(getattr(self, section), name)
