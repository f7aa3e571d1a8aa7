"""The section ``training``: the loop, by the names of transformers' ``TrainingArguments``."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from workbench.recipe.optimizers import LORA_FA, OPTIMIZERS, usable
from workbench.recipe.sections.section import AUTO, OFFLOAD, Auto, Offload, Section, excluded, setting
from workbench.recipe.trackers import Reporter

MAX_MICRO_BATCHES = 65536
"""The largest value of ``training.gradient_accumulation_steps`` and ``training.effective_batch_size``."""

CHECKPOINTING_TEXTS = {True: "checkpointing on", False: "checkpointing off", OFFLOAD: "checkpoints in host memory"}
"""What is shown for the values of ``training.gradient_checkpointing``, except for ``auto``."""


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
    lr_scheduler_type: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt", "cosine_with_restarts",
        "cosine_with_min_lr", "warmup_stable_decay",
    ] = setting("cosine", "Learning rate schedule after warm-up.")  # fmt: skip
    lr_scheduler_kwargs: dict[str, bool | int | float | str] = setting(
        {},
        "Arguments of the schedule, by transformers' names: num_cycles of cosine_with_restarts, min_lr_rate of "
        "cosine_with_min_lr, num_decay_steps of warmup_stable_decay, power of polynomial.",
    )
    warmup_ratio: float = setting(
        0.03, "Fraction of the steps used to warm up to the peak learning rate.", up="slower start",
        steps=(0.0, 0.03, 0.05, 0.1), ge=0, le=1,
    )  # fmt: skip
    warmup_steps: int = setting(
        0, "Steps used to warm up to the peak learning rate. 0: warmup_ratio says how many.", up="slower start",
        unit="steps", steps=(0, 5, 10, 50, 100), ge=0, le=1_000_000,
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
    neftune_noise_alpha: float = setting(
        0.0, "NEFTune: add uniform noise of this strength to the embeddings during training. 0: off; the paper has 5.",
        up="less overfitting on small instruction sets, then noise", steps=(0.0, 5.0, 10.0, 15.0), ge=0, le=1000,
    )  # fmt: skip
    optim: str = setting(
        "adamw_torch_fused",
        "Optimizer. AdamW keeps 8 bytes per trained parameter, the 8-bit variants 2; paged "
        "variants spill to host memory. Lion keeps half as much and wants a tenth of the learning rate. lora_fa: "
        "LoRA-FA, which trains B and leaves A frozen. Some need a package of their own, which is named where missing.",
        choices=usable(),
    )
    loraplus_lr_ratio: float = setting(
        0.0, "LoRA+: learning rate of B as a multiple of A's, which is learning_rate. 0: the same. The paper has 16.",
        up="B learns faster", steps=(0.0, 2.0, 4.0, 8.0, 16.0), ge=0, le=1000,
    )  # fmt: skip
    embedding_learning_rate: float = setting(
        0.0,
        "Peak learning rate of trained embeddings and output layers: embed_tokens and lm_head in modules_to_save, "
        "LoRA on them, and rows of new tokens. 0: learning_rate. A tenth to a half of it is usual for continued "
        "pretraining.",
        up="embeddings learn faster, then forget", steps=(0.0, 1e-6, 5e-6, 1e-5, 2e-5, 5e-5), ge=0, le=1,
    )  # fmt: skip
    adam_beta1: float = setting(
        0.9, "Decay of the mean of gradients in AdamW, Lion and AdEMAMix.", steps=(0.8, 0.9, 0.95), ge=0, lt=1
    )
    adam_beta2: float = setting(
        0.999, "Decay of the mean of squared gradients in AdamW, Lion and AdEMAMix.", steps=(0.95, 0.98, 0.99, 0.999),
        ge=0, lt=1,
    )  # fmt: skip
    adam_epsilon: float = setting(1e-8, "Added to the denominator of AdamW, against division by zero.", ge=0, le=1)
    group_by_length: bool = setting(
        False,
        "Put records of similar length into the same step: less padding where batches are padded, and steps of more "
        "even length. The order is less random.",
    )
    gradient_checkpointing: bool | Auto | Offload = setting(
        AUTO,
        "Recompute activations in the backward pass: far less memory for about a quarter more time. offload: also keep "
        "the layers' inputs, from which they are recomputed, in host memory; on a CPU this saves nothing. auto: off if "
        "the step fits without it, offload only if it fits no other way.",
    )
    tiled_mlp: bool = setting(
        False,
        "Compute the MLP of each layer in 8 pieces of the sequence: less memory for long records, and little more time "
        "where activations are recomputed. Losses differ by rounding; with dropout, other numbers are dropped.",
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
    eval_on_start: bool = setting(
        True, "Evaluate the base on the held-out records before the first step, to compare with."
    )
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
    save_only_model: bool = setting(
        False,
        "Leave optimizer and random states out of the planned checkpoints, which are then adapters only. A run that "
        "ends in a crash resumes from one without being exact; a stop or a pause still saves everything.",
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
    report_to: list[Reporter] = setting(
        [], "Also log metrics to tensorboard (in the run folder), wandb, mlflow or another tracker, if installed."
    )
    seed: int = setting(42, "Random seed: record order, dropout, initialization of A.", ge=0, le=2**32 - 1)
    data_seed: int | None = setting(
        None, "Random seed of the record order alone. Empty: the same as seed.", ge=0, le=2**32 - 1
    )

    @field_validator("optim")
    @classmethod
    def _check_optim(cls, name: str) -> str:
        known = OPTIMIZERS.get(name)
        if known is None:
            raise excluded("training.optim", f"there is no optimizer {name!r}", f"expected {', '.join(usable())}")
        if known.refusal:
            raise excluded("training.optim", f"{name} {known.refusal}", f"set it to {known.instead}")
        return name

    @property
    def trains_b_only(self) -> bool:
        """Whether A stays as it was drawn."""
        return self.optim == LORA_FA

    @property
    def warmup(self) -> float:
        """The warm-up as transformers' ``warmup_steps`` takes it: below 1 a share of all steps."""
        return self.warmup_steps or self.warmup_ratio

    @property
    def order_seed(self) -> int:
        """The seed of the record order."""
        return self.seed if self.data_seed is None else self.data_seed

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
