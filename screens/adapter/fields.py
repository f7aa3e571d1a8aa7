"""The form of the Adapter screen: which knobs, in which groups, in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from screens.adapter.kernels_field import kernels_knob
from screens.adapter.trackers_field import report_knob
from screens.forms.fields import (
    Changes,
    KnobGroup,
    KnobSpec,
    Option,
    choice_knob,
    layer_count,
    number_knob,
    parse_ranges,
    parse_targets,
    ranges_text,
    switch_knob,
    target_sets,
    typed_number,
)
from workbench.recipe.schema import AUTO

if TYPE_CHECKING:
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe


def form() -> tuple[KnobGroup, ...]:
    """The whole form, in the order of the screen."""
    return (
        KnobGroup(
            "Adapter",
            (
                number_knob("adapter.r", "rank r"),
                _alpha(),
                number_knob("adapter.lora_dropout", "lora_dropout"),
                _targets(),
                _variant(),
                _layers(),
                choice_knob("adapter.bias", "bias"),
                _names("adapter.modules_to_save", "extra modules"),
            ),
        ),
        KnobGroup(
            "Quantization",
            (
                choice_knob(
                    "quantization.method", "base", {"nf4": "nf4", "fp4": "fp4", "int8": "int8", "none": "16-bit"}
                ),
                switch_knob("quantization.double_quant", "double quant"),
                choice_knob(
                    "quantization.compute_dtype",
                    "compute dtype",
                    {"auto": "auto", "bfloat16": "bf16", "float16": "fp16", "float32": "fp32"},
                ),
            ),
        ),
        KnobGroup(
            "Training memory",
            (
                _micro_batch(),
                number_knob("training.gradient_accumulation_steps", "× accumulation", _accumulation),
                number_knob("training.effective_batch_size", "effective batch", _wanted),
                number_knob("data.max_length", "max length", lambda _: "tokens"),
                choice_knob(
                    "training.gradient_checkpointing", "checkpointing", {AUTO: "auto", True: "on", False: "off"}
                ),
                switch_knob("training.torch_compile", "torch_compile"),
                kernels_knob(),
                choice_knob("training.optim", "optimizer", shape="cycle"),
            ),
        ),
        KnobGroup(
            "Learning",
            (
                number_knob("training.learning_rate", "learning rate"),
                number_knob("training.num_train_epochs", "epochs"),
                number_knob(
                    "training.max_steps",
                    "max steps",
                    lambda r: "" if r.training.max_steps > 0 else "unlimited (epochs)",
                ),
                choice_knob("training.lr_scheduler_type", "schedule", shape="cycle"),
                number_knob("training.warmup_ratio", "warm-up"),
                number_knob("training.weight_decay", "weight decay"),
                number_knob("training.seed", "seed"),
                report_knob(),
            ),
        ),
    )


def _alpha() -> KnobSpec:
    path = "adapter.lora_alpha"
    plain = number_knob(path, "lora_alpha")
    linked = Option("linked", {path: None})

    def parse(text: str) -> Changes:
        return linked.changes if not text.strip() else {path: typed_number(text, True)}

    def note(recipe: Recipe) -> str:
        return "= 2·r" if recipe.adapter.alpha_is_linked else f"scaling {recipe.adapter.scaling:.3g}"

    return KnobSpec(
        "lora_alpha", path, "steps", lambda _: [linked, *plain.options(None)], plain.value, parse, note, True
    )


_VARIANT_KEYS = ("adapter.use_rslora", "adapter.use_dora", "adapter.init_lora_weights")


def _variant() -> KnobSpec:
    settings = {
        "LoRA": (False, False, True),
        "rsLoRA": (True, False, True),
        "DoRA": (False, True, True),
        "PiSSA": (False, False, "pissa"),
    }
    options = [Option(label, dict(zip(_VARIANT_KEYS, values, strict=True))) for label, values in settings.items()]
    return KnobSpec("variant", _VARIANT_KEYS[2], "choice", lambda _: options, lambda _: "")


def _targets() -> KnobSpec:
    path = "adapter.target_modules"

    def options(skeleton: Skeleton | None) -> list[Option]:
        return [Option(label, {path: names}) for label, names in target_sets(skeleton).items()]

    def value(recipe: Recipe) -> str:
        targets = recipe.adapter.target_modules
        return targets if isinstance(targets, str) else ", ".join(targets)

    def parse(text: str) -> Changes:
        return {path: parse_targets(text)}

    def note(recipe: Recipe) -> str:
        targets = recipe.adapter.target_modules
        if isinstance(targets, str):
            return "" if targets == "all-linear" else "regex"
        return f"{len(targets)} names"

    return KnobSpec("targets", path, "choice", options, value, parse, note)


def _names(path: str, label: str) -> KnobSpec:
    """A list of module names; empty for none."""
    none = Option("none", {path: None})

    def value(recipe: Recipe) -> str:
        return ", ".join(recipe.get(path) or ())

    def parse(text: str) -> Changes:
        return {path: [name.strip() for name in text.split(",") if name.strip()] or None}

    def options(skeleton: Skeleton | None) -> list[Option]:
        output = skeleton.output.rpartition(".")[2] if skeleton and skeleton.output else "lm_head"
        return [none, Option(output, {path: [output]})]

    return KnobSpec(label, path, "choice", options, value, parse)


def _layers() -> KnobSpec:
    path = "adapter.layers_to_transform"

    def options(skeleton: Skeleton | None) -> list[Option]:
        count = layer_count(skeleton)
        found = [Option("all", {path: None})]
        if count > 1:
            found.append(Option("upper half", {path: list(range(count // 2, count))}))
        return found

    def value(recipe: Recipe) -> str:
        return ranges_text(recipe.get(path) or ())

    def parse(text: str) -> Changes:
        return {path: parse_ranges(text)}

    return KnobSpec("layers", path, "choice", options, value, parse)


def _micro_batch() -> KnobSpec:
    path = "training.per_device_train_batch_size"
    plain = number_knob(path, "micro-batch", _effective)
    options = [Option(AUTO, {path: AUTO}), *plain.options(None)]
    return replace(plain, options=lambda _: options)


def _effective(recipe: Recipe) -> str:
    return f"= {recipe.training.effective_batch} per step"


def _accumulation(recipe: Recipe) -> str:
    is_auto = recipe.training.per_device_train_batch_size == AUTO
    return "derived" if is_auto else _effective(recipe)


def _wanted(recipe: Recipe) -> str:
    return "per step" if recipe.training.per_device_train_batch_size == AUTO else "for micro-batch auto"
