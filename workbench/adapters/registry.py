"""Finds the adapter methods, and asks them what the rest of the program needs to know."""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from workbench.adapters import methods as _folder
from workbench.adapters.method import Method
from workbench.adapters.option import Refusal
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from peft import PeftConfig

    from workbench.recipe.sections.adapter import AdapterSection

DEFAULT = "lora"


@cache
def methods() -> Mapping[str, Method]:
    """Every method by name, the default one first."""
    found: list[Method] = [
        importlib.import_module(f"{_folder.__name__}.{module.name}").METHOD
        for module in pkgutil.iter_modules(_folder.__path__)
    ]
    return {method.name: method for method in sorted(found, key=lambda one: (one.name != DEFAULT, one.name))}


def method_of(name: str) -> Method:
    """The method of this name.

    Raises:
        WorkbenchError: there is none.
    """
    try:
        return methods()[name]
    except KeyError:
        raise WorkbenchError(
            f"There is no adapter method {name!r}.", f"Choose one of {', '.join(methods())}.", kind="adapter_settings"
        ) from None


def adapter_method(config: Mapping[str, object]) -> Method:
    """The method of an ``adapter_config.json``.

    Raises:
        WorkbenchError: no method here has this type of PEFT's.
    """
    kind = config.get("peft_type", methods()[DEFAULT].peft_type)
    for method in methods().values():
        if method.peft_type == kind:
            return method
    known = ", ".join(method.peft_type for method in methods().values())
    raise WorkbenchError(
        f"The adapter is of PEFT's type {kind}, which this program does not use.",
        f"It uses {known}.",
        kind="adapter_method",
    )


def peft_config(
    adapter: "AdapterSection", token_rows: dict[str, list[int]] | None = None, excluded: str = "", **changes: Any
) -> "PeftConfig":
    """PEFT's configuration for the adapter section.

    Args:
        token_rows: rows of embeddings to train, by name of the layer.
        excluded: a regular expression of the layers that get no adapter.
        changes: arguments to replace.
    """
    import peft

    name, arguments = peft_arguments(adapter, token_rows, excluded)
    config: PeftConfig = getattr(peft, name)(**{"task_type": "CAUSAL_LM"} | arguments | changes)
    return config


def peft_arguments(
    adapter: "AdapterSection", token_rows: dict[str, list[int]] | None = None, excluded: str = ""
) -> tuple[str, dict[str, Any]]:
    """The class of PEFT's configuration for the adapter section, and its arguments besides the task."""
    method = method_of(adapter.method)
    arguments = method.arguments(adapter)
    check_model(method, trains_rows=bool(token_rows), has_frozen_parts=bool(excluded))
    if token_rows:
        arguments["trainable_token_indices"] = token_rows
    if excluded:
        own = _excluded_pattern(adapter.exclude_modules)
        arguments["exclude_modules"] = f"{own}|{excluded}" if own else excluded
    return method.config_class, arguments


def _excluded_pattern(excluded: str | list[str] | None) -> str:
    """What the recipe excludes as a regular expression: a name in a list also matches as the end of a longer one."""
    if isinstance(excluded, str):
        return f"(?:{excluded})"
    return rf"(?:.*\.)?(?:{'|'.join(map(re.escape, excluded))})" if excluded else ""


def check_model(method: Method, *, trains_rows: bool, has_frozen_parts: bool) -> None:
    """Check that a method can be used on a model with added token rows, or with parts that get no adapter.

    Raises:
        WorkbenchError: PEFT's configuration of the method cannot say it.
    """
    problem = ""
    if trains_rows and not method.trains_rows:
        problem = f"{method.label} cannot train the new rows of the embeddings (model.resize_embeddings)"
    elif has_frozen_parts and not method.excludes:
        problem = f"{method.label} cannot leave out parts of a model, and this one has parts that get no adapter"
    if problem:
        raise WorkbenchError(f"{problem}.", "Set adapter.method to lora.", kind="adapter_settings")


def has_rank(adapter: "AdapterSection") -> bool:
    """Whether the method reads ``r``."""
    return "r" in method_of(adapter.method).reads


def size_words(adapter: "AdapterSection") -> str:
    """The size of the adapter in a word or two: ``r 16``; the method where it is not LoRA: ``VeRA r 256``."""
    method = method_of(adapter.method)
    words = f"r {adapter.r}" if has_rank(adapter) else method.size_words(adapter.options)
    return words if method.name == DEFAULT else f"{method.label} {words}".strip()


def alpha_words(adapter: "AdapterSection") -> str:
    """``alpha 32``; empty for a method that reads no ``lora_alpha``."""
    return f"alpha {adapter.lora_alpha}" if "lora_alpha" in method_of(adapter.method).reads else ""


def size_and_alpha(adapter: "AdapterSection") -> str:
    """``r 16, alpha 32``."""
    return ", ".join(filter(None, (size_words(adapter), alpha_words(adapter))))


def without_dropout(adapter: "AdapterSection") -> "AdapterSection":
    """The same adapter without dropout: without ``lora_dropout``, and without the dropouts among the options."""
    changes: dict[str, object] = {}
    if "lora_dropout" in method_of(adapter.method).reads and adapter.lora_dropout:
        changes["lora_dropout"] = 0.0
    if any(name.endswith("dropout") and value for name, value in adapter.options.items()):
        changes["options"] = {name: value for name, value in adapter.options.items() if not name.endswith("dropout")}
    return adapter.model_copy(update=changes) if changes else adapter


def section_refusal(adapter: "AdapterSection") -> Refusal | None:
    """What is wrong with an adapter section for its method: an unknown method or option, or a key that it ignores."""
    method = methods().get(adapter.method)
    if method is None:
        return Refusal("adapter.method", f"there is no method {adapter.method!r}", f"allowed: {', '.join(methods())}")
    for name in sorted(adapter.model_fields_set - method.reads - {"method", "options", "continue_from"}):
        if getattr(adapter, name) != type(adapter).model_fields[name].get_default(call_default_factory=True):
            readers = ", ".join(other.name for other in methods().values() if name in other.reads)
            return Refusal(f"adapter.{name}", f"{method.label} does not read it", f"remove it; it is for {readers}")
    for name, value in adapter.options.items():
        option = method.options.get(name)
        if option is None:
            has = f"its options are {', '.join(method.options)}" if method.options else "it has none: remove it"
            return Refusal("adapter.options", f"{method.label} has no option {name!r}", has)
        if not option.accepts(value):
            return Refusal("adapter.options", f"{name} of {method.label}: got {value!r}", f"expected {option.allowed}")
    if adapter.continue_from and method.continue_refusal:
        return Refusal("adapter.continue_from", method.continue_refusal, "leave it empty")
    return method.refusal(adapter)
