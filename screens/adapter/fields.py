"""The form of the Adapter tab: its settings, in groups and in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from screens.adapter.kernels_field import kernels_setting
from screens.adapter.optimizer_field import optimizer_setting
from screens.adapter.token_rows_field import token_rows_setting
from screens.adapter.trackers_field import report_setting
from screens.forms.any_setting import any_setting
from screens.forms.fields import (
    Changes,
    Option,
    SettingGroup,
    SettingSpec,
    choice_setting,
    layer_count,
    number_setting,
    parse_ranges,
    parse_targets,
    ranges_text,
    switch_setting,
    target_sets,
    typed_number,
)
from screens.forms.path_kinds import FOLDER
from screens.forms.places import tab_of
from screens.widgets.plain import plain
from workbench.adapters.registry import method_of, methods
from workbench.adapters.starts import start_of
from workbench.objectives.table import OBJECTIVES, using
from workbench.recipe.fields import unread
from workbench.recipe.schema import known_paths
from workbench.recipe.sections.adapter import InitMethod
from workbench.recipe.sections.section import AUTO, OFFLOAD
from workbench.recipe.text import parse_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe


def form() -> tuple[SettingGroup, ...]:
    """Return the groups of the form, in order: together with Data, a field for every setting but the model."""
    listed = (
        SettingGroup(
            "Adapter",
            (
                number_setting("adapter.r", "rank r"),
                _alpha(),
                number_setting("adapter.lora_dropout", "lora_dropout"),
                _targets(),
                _variant(),
                _layers(),
                choice_setting("adapter.bias", "bias"),
                _names("adapter.modules_to_save", "extra modules"),
                _method(),
            ),
        ),
        SettingGroup(
            "Quantization",
            (
                choice_setting(
                    "quantization.method", "base", {"nf4": "nf4", "fp4": "fp4", "int8": "int8", "none": "16-bit"}
                ),
                switch_setting("quantization.double_quant", "double quant"),
                choice_setting(
                    "quantization.compute_dtype",
                    "compute dtype",
                    {"auto": "auto", "bfloat16": "bf16", "float16": "fp16", "float32": "fp32"},
                ),
            ),
        ),
        SettingGroup(
            "Training memory",
            (
                _micro_batch(),
                number_setting("training.gradient_accumulation_steps", "× accumulation", _accumulation),
                number_setting("training.effective_batch_size", "effective batch", _wanted),
                number_setting("data.max_length", "max length", lambda _: "tokens"),
                choice_setting(
                    "training.gradient_checkpointing",
                    "checkpointing",
                    {AUTO: "auto", True: "on", False: "off", OFFLOAD: "offload"},
                ),
                switch_setting("training.tiled_mlp", "MLP in pieces"),
                switch_setting("training.torch_compile", "torch_compile"),
                kernels_setting(),
                optimizer_setting(),
            ),
        ),
        SettingGroup(
            "Learning",
            (
                number_setting("training.learning_rate", "learning rate"),
                number_setting("training.num_train_epochs", "epochs"),
                number_setting(
                    "training.max_steps",
                    "max steps",
                    lambda r: "" if r.training.max_steps > 0 else "unlimited (epochs)",
                ),
                choice_setting("training.lr_scheduler_type", "schedule", shape="cycle"),
                number_setting("training.warmup_ratio", "warm-up"),
                number_setting("training.weight_decay", "weight decay"),
                number_setting("training.router_aux_loss", "router aux loss"),
                number_setting("training.seed", "seed"),
                any_setting("training.max_grad_norm", "gradient clip"),
                report_setting(),
            ),
        ),
        SettingGroup(
            "Objective",
            (
                choice_setting(
                    "objective.kind",
                    "objective",
                    {kind: objective.label for kind, objective in OBJECTIVES.items()},
                    shape="cycle",
                ),
                number_setting("objective.beta", "beta", _with("beta")),
                choice_setting("objective.loss_type", "preference loss", shape="cycle"),
                number_setting("objective.label_smoothing", "label smoothing", _with_smoothing),
                number_setting("objective.simpo_gamma", "SimPO margin", _with("simpo_gamma")),
                number_setting("objective.cpo_alpha", "weight of chosen", _with("cpo_alpha")),
                number_setting("objective.rpo_alpha", "RPO weight", _with("rpo_alpha")),
                number_setting("objective.desirable_weight", "weight of good", _with("desirable_weight")),
                number_setting("objective.undesirable_weight", "weight of bad", _with("undesirable_weight")),
                number_setting(
                    "objective.center_rewards_coefficient", "center rewards", _with("center_rewards_coefficient")
                ),
            ),
            is_folded=True,
        ),
        SettingGroup(
            "Advanced",
            (
                any_setting("training.warmup_steps", "warm-up steps"),
                any_setting("training.lr_scheduler_kwargs", "schedule options"),
                any_setting("training.loraplus_lr_ratio", "LoRA+ ratio"),
                any_setting("training.embedding_learning_rate", "embedding rate"),
                any_setting("training.group_by_length", "group by length"),
                any_setting("training.neftune_noise_alpha", "NEFTune noise"),
                any_setting("training.adam_beta1", "beta 1"),
                any_setting("training.adam_beta2", "beta 2"),
                any_setting("training.adam_epsilon", "epsilon"),
                any_setting("training.data_seed", "order seed"),
            ),
            is_folded=True,
        ),
        SettingGroup(
            "Evaluation and checkpoints",
            (
                any_setting("training.eval_steps", "evaluate every"),
                any_setting("training.eval_on_start", "evaluate first"),
                any_setting("training.save_steps", "save every"),
                any_setting("training.save_total_limit", "checkpoints"),
                any_setting("training.save_only_model", "weights only"),
                any_setting("training.keep", "keep"),
                any_setting("training.early_stopping_patience", "early stopping"),
                any_setting("training.early_stopping_min_delta", "min decrease"),
                any_setting("training.non_finite", "non-finite loss"),
                any_setting("training.logging_steps", "log every"),
            ),
            is_folded=True,
        ),
        SettingGroup(
            "Initialization and patterns",
            (
                _initialization(),
                any_setting("adapter.continue_from", "continue from"),
                any_setting("adapter.exclude_modules", "exclude modules"),
                any_setting("adapter.layers_pattern", "layers pattern"),
                any_setting("adapter.rank_pattern", "rank pattern"),
                any_setting("adapter.alpha_pattern", "alpha pattern"),
                _method_options(),
            ),
            is_folded=True,
        ),
        SettingGroup(
            "Model and output",
            (
                any_setting("model.revision", "revision"),
                any_setting("model.subfolder", "subfolder"),
                any_setting("model.trust_remote_code", "remote code"),
                any_setting("model.attn_implementation", "attention"),
                token_rows_setting(),
                any_setting("output.name", "run name"),
                any_setting("output.dir", "runs folder", paths=FOLDER),
            ),
            is_folded=True,
        ),
    )
    return (*listed, *_the_rest(listed))


def _the_rest(listed: tuple[SettingGroup, ...]) -> list[SettingGroup]:
    """Return a folded group for each section of the recipe with settings that no other field has."""
    found = {path for group in listed for spec in group.settings for path in (spec.path, *spec.also)}
    rest: dict[str, list[SettingSpec]] = {}
    for path in known_paths():
        section, _, name = path.partition(".")
        if path not in found and tab_of(path) == "adapter":
            rest.setdefault(section, []).append(any_setting(path, name))
    return [SettingGroup(section.capitalize(), tuple(specs), is_folded=True) for section, specs in rest.items()]


def _initialization() -> SettingSpec:
    path = "adapter.init_lora_weights"
    words: dict[object, str] = {True: "Kaiming", False: "random", **{name: name for name in get_args(InitMethod)}}
    setting = choice_setting(path, "initialization", words, shape="cycle")

    def note(recipe: Recipe) -> str:
        start = start_of(recipe.get(path))
        return "" if start is None else start.help

    return replace(setting, value=lambda recipe: words[recipe.get(path)], note=note)


def _with(key: str) -> Callable[[Recipe], str]:
    """Which objectives use a key of the section; empty if the recipe's does."""
    return lambda recipe: "" if key in recipe.objective.spec.keys else f"used with {using(key)}"


def _with_smoothing(recipe: Recipe) -> str:
    objective = recipe.objective
    if objective.kind == "dpo" and objective.loss_type != "robust":
        return "used with robust only"
    return _with("label_smoothing")(recipe)


def _alpha() -> SettingSpec:
    path = "adapter.lora_alpha"
    plain = number_setting(path, "lora_alpha")
    linked = Option("linked", {path: None})

    def parse(text: str) -> Changes:
        return linked.changes if not text.strip() else {path: typed_number(text, True)}

    def note(recipe: Recipe) -> str:
        return "= 2·r" if recipe.adapter.alpha_is_linked else f"scaling {recipe.adapter.scaling:.3g}"

    return SettingSpec(
        "lora_alpha", path, "steps", lambda _: [linked, *plain.options(None)], plain.value, parse, note, True
    )


class _MethodOption(Option):
    """A method, whatever its settings are."""

    def is_set(self, recipe: Recipe) -> bool:
        return bool(recipe.adapter.method == self.changes["adapter.method"])


class _MethodSpec(SettingSpec):
    """The setting of the method, whose arrows pass over those that PEFT cannot train on the recipe's base."""

    def stepped(self, recipe: Recipe, skeleton: Skeleton | None, by: int) -> Changes:
        names, here = list(methods()), list(methods()).index(recipe.adapter.method)
        for name in names[here + 1 :] if by > 0 else reversed(names[:here]):
            if methods()[name].refusal_on(recipe.adapter, recipe.quantization.method) is None:
                return _method_changes(name)
        return {}


def _method_changes(name: str) -> Changes:
    """Return what choosing a method changes: it takes along only what it reads too."""
    return {"adapter.method": name} | unread(name)


def _method() -> SettingSpec:
    options = [_MethodOption(method.label, _method_changes(name)) for name, method in methods().items()]

    def value(recipe: Recipe) -> str:
        return method_of(recipe.adapter.method).label

    def note(recipe: Recipe) -> str:
        return method_of(recipe.adapter.method).help

    return _MethodSpec("method", "adapter.method", "cycle", lambda _: options, value, note=note)


def _method_options() -> SettingSpec:
    """Return the setting with the method's own settings, which names them in its note."""
    path = "adapter.options"

    def value(recipe: Recipe) -> str:
        return plain(", ".join(f"{name}: {value}" for name, value in recipe.adapter.options.items()))

    def parse(text: str) -> Changes:
        try:
            return {path: parse_value("{" + text.strip(" {}") + "}")}
        except ValueError:
            return {path: text}

    def note(recipe: Recipe) -> str:
        return ", ".join(method_of(recipe.adapter.method).options) or "none"

    return SettingSpec("method options", path, "text", lambda _: (), value, parse, note)


_VARIANT_KEYS = ("adapter.use_rslora", "adapter.use_dora", "adapter.init_lora_weights")


def _variant() -> SettingSpec:
    settings = {
        "LoRA": (False, False, True),
        "rsLoRA": (True, False, True),
        "DoRA": (False, True, True),
        "PiSSA": (False, False, "pissa"),
    }
    options = [Option(label, dict(zip(_VARIANT_KEYS, values, strict=True))) for label, values in settings.items()]
    return SettingSpec("variant", _VARIANT_KEYS[2], "choice", lambda _: options, lambda _: "", also=_VARIANT_KEYS[:2])


def _targets() -> SettingSpec:
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

    return SettingSpec("targets", path, "choice", options, value, parse, note)


def _names(path: str, label: str) -> SettingSpec:
    """Return a setting with a list of module names."""
    none = Option("none", {path: None})

    def value(recipe: Recipe) -> str:
        return ", ".join(recipe.get(path) or ())

    def parse(text: str) -> Changes:
        return {path: [name.strip() for name in text.split(",") if name.strip()] or None}

    def options(skeleton: Skeleton | None) -> list[Option]:
        output = skeleton.output.rpartition(".")[2] if skeleton and skeleton.output else "lm_head"
        return [none, Option(output, {path: [output]})]

    return SettingSpec(label, path, "choice", options, value, parse)


def _layers() -> SettingSpec:
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

    return SettingSpec("layers", path, "choice", options, value, parse, is_list_of_numbers=True)


def _micro_batch() -> SettingSpec:
    path = "training.per_device_train_batch_size"
    plain = number_setting(path, "micro-batch", _effective)
    options = [Option(AUTO, {path: AUTO}), *plain.options(None)]
    return replace(plain, options=lambda _: options)


def _effective(recipe: Recipe) -> str:
    return f"= {recipe.training.effective_batch} per step"


def _accumulation(recipe: Recipe) -> str:
    is_auto = recipe.training.per_device_train_batch_size == AUTO
    return "derived" if is_auto else _effective(recipe)


def _wanted(recipe: Recipe) -> str:
    return "per step" if recipe.training.per_device_train_batch_size == AUTO else "for micro-batch auto"
