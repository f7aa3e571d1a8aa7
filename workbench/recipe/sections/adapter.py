"""The section ``adapter``: the method, and its settings by the names of PEFT's configurations."""

from typing import Literal, Self

from pydantic import model_validator

from workbench.adapters.registry import method_of, methods, section_refusal
from workbench.recipe.sections.section import Section, excluded, setting

RANK_STEPS = (4, 8, 16, 32, 64, 128, 256)
InitMethod = Literal[
    "gaussian", "pissa", "pissa_niter_4", "pissa_niter_16", "olora", "orthogonal", "eva", "loftq", "corda", "lora_ga"
]


class AdapterSection(Section):
    method: str = setting(
        "lora",
        "Adapter method. lora suits most tasks; docs/adapters.md says when to take another one.",
        choices=tuple(methods()),
    )
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
        "singular vectors or QR factors (unquantized base only). pissa_niter_4, pissa_niter_16: as pissa, from an "
        "approximate decomposition by so many iterations, in seconds. orthogonal: orthogonal A and B. eva, corda, "
        "lora_ga: from the training records. loftq: from what 4-bit quantization lost.",
    )
    modules_to_save: list[str] | None = setting(
        None, "Extra modules to train fully and save with the adapter, such as lm_head or embed_tokens. Costly."
    )
    layers_to_transform: list[int] | None = setting(None, "Layer indices that get adapters. Empty: all layers.")
    layers_pattern: list[str] | None = setting(
        None,
        "Used with layers_to_transform: names of the module list that holds the layers, such as layers. Empty: any.",
    )
    exclude_modules: str | list[str] | None = setting(
        None, "Layers that get no adapter although they are targets: a list of names, or a regular expression."
    )
    rank_pattern: dict[str, int] = setting({}, "Per-module ranks: module name or pattern → r.")
    alpha_pattern: dict[str, int] = setting({}, "Per-module alphas: module name or pattern → lora_alpha.")
    options: dict[str, bool | int | float | str] = setting({}, "The method's own settings, by PEFT's names.")
    continue_from: str | None = setting(
        None,
        "Start from the weights of an adapter that exists: a run, run@step or an adapter folder of the same base, rank "
        "and variant. With dpo and kto it is the reference too. Empty: a new adapter.",
        min_length=1,
    )

    @model_validator(mode="after")
    def _link_alpha(self) -> Self:
        # `__dict__` bypasses both the frozen model and `model_fields_set`, so that the link survives dump and reload.
        if self.alpha_is_linked:
            self.__dict__["lora_alpha"] = 2 * self.r
        return self

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if refusal := section_refusal(self):
            raise excluded(refusal.path, refusal.reason, refusal.cure)
        return self

    @property
    def has_dropout(self) -> bool:
        """Whether the method reads ``lora_dropout``."""
        return "lora_dropout" in method_of(self.method).reads

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
