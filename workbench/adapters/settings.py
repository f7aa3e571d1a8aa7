"""The settings that determine the shapes of an adapter, and the checks that hold for every method."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.recipe.sections.adapter import AdapterSection

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class AdapterSettings:
    """A recipe's adapter section, plus settings of ``LoraConfig`` that only saved adapters have.

    Attributes:
        method: name of the adapter method.
        options: its own settings that are set.
        head: outputs of a head that is trained with the adapter; 0 if it predicts tokens.
        trains_b_only: A stays as it was drawn, as with LoRA-FA.
    """

    r: int
    target_modules: str | tuple[str, ...]
    lora_dropout: float = 0.0
    dropout_is_default: bool = False
    bias: str = "none"
    use_dora: bool = False
    lora_bias: bool = False
    init_lora_weights: bool | str = True
    modules_to_save: tuple[str, ...] = ()
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    exclude_modules: str | tuple[str, ...] = ()
    target_parameters: tuple[str, ...] = ()
    rank_pattern: tuple[tuple[str, int], ...] = ()
    method: str = "lora"
    options: tuple[tuple[str, bool | int | float | str], ...] = ()
    head: int = 0
    trains_b_only: bool = False

    @classmethod
    def of(cls, adapter: "AdapterSection", head: int = 0, *, trains_b_only: bool = False) -> "AdapterSettings":
        targets = adapter.target_modules
        layers, excluded = adapter.layers_to_transform, adapter.exclude_modules
        return cls(
            r=adapter.r,
            target_modules=targets if isinstance(targets, str) else tuple(targets),
            lora_dropout=adapter.lora_dropout if adapter.has_dropout else 0.0,
            dropout_is_default=adapter.dropout_is_default,
            bias=adapter.bias,
            use_dora=adapter.use_dora,
            init_lora_weights=adapter.init_lora_weights,
            modules_to_save=tuple(adapter.modules_to_save or ()),
            layers_to_transform=None if layers is None else tuple(layers),
            layers_pattern=tuple(adapter.layers_pattern or ()),
            exclude_modules=excluded if isinstance(excluded, str) else tuple(excluded or ()),
            rank_pattern=tuple(adapter.rank_pattern.items()),
            method=adapter.method,
            options=tuple(sorted(adapter.options.items())),
            head=head,
            trains_b_only=trains_b_only,
        )

    def varied(self, changes: Mapping[str, Any]) -> "AdapterSettings":
        """The settings with other values of the adapter section, by the section's own names."""
        if not changes:
            return self
        if "lora_dropout" in changes:
            changes = {**changes, "dropout_is_default": False}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
        if "options" in values:
            values["options"] = tuple(sorted(values["options"].items()))
        return replace(self, **values)

    @property
    def is_all_linear(self) -> bool:
        return isinstance(self.target_modules, str) and self.target_modules.lower() == ALL_LINEAR


def check_settings(settings: AdapterSettings) -> None:
    """Check what the configuration of every method refuses for any model.

    Raises:
        WorkbenchError: two settings exclude each other.
    """
    if isinstance(settings.target_modules, str):
        if settings.layers_to_transform is not None:
            raise WorkbenchError(
                f"adapter.layers_to_transform needs names, and adapter.target_modules is {settings.target_modules!r}.",
                "List the modules by name, such as [q_proj, v_proj], or leave layers_to_transform empty.",
                kind="adapter_settings",
            )
        if settings.layers_pattern:
            raise WorkbenchError(
                f"layers_pattern needs names, and adapter.target_modules is {settings.target_modules!r}.",
                "List the modules by name, such as [q_proj, v_proj].",
                kind="adapter_settings",
            )
    if settings.layers_pattern and settings.layers_to_transform is None:
        raise WorkbenchError(
            "layers_pattern is set, but adapter.layers_to_transform is not.",
            "Set adapter.layers_to_transform.",
            kind="adapter_settings",
        )


def compiled(pattern: str, where: str) -> re.Pattern[str]:
    """Compile a user's regular expression.

    Raises:
        WorkbenchError: it is not valid.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise WorkbenchError(
            f"{where}: {pattern!r} is not a valid regular expression: {error}.",
            "Correct it, or list plain module names.",
            kind="adapter_settings",
        ) from error
