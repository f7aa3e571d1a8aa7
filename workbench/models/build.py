"""Builds a model's module tree from its ``config.json``, by instantiating the model on torch's meta device.

Nothing is downloaded, no weights are allocated, and code from the model's repository runs only if the user allows it.
Building takes 15–60 ms for a model of any size, once torch is imported.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from workbench.errors import WorkbenchError
from workbench.models.language_part import frozen_parts
from workbench.models.model_class import auto_class, check_continues_text
from workbench.models.skeleton import Module, ModuleFacts, ModuleKind, Skeleton, Tensor
from workbench.models.stored_quantization import stored_quantization

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

LAYER_LIMIT = 1000
"""Far more layers than any published model has. A configuration with more is refused, to save time and memory."""

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
# Packages that are not called like the module that transformers names.
_PACKAGES = {"PIL": "pillow", "Pillow": "pillow"}
# Keys that affect how weights are loaded or which code runs, but not which modules exist.
_NON_STRUCTURAL_KEYS = (
    "quantization_config",
    "auto_map",
    "_attn_implementation",
    "attn_implementation",
    "_name_or_path",
)


def read_config(path: Path) -> dict[str, object]:
    """Read a ``config.json``, given the path of the file or of its folder.

    Raises:
        WorkbenchError: the file is missing, or not a JSON object.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkbenchError(
            f"Cannot read {file}: {error.strerror}.", "Give a folder with a config.json.", kind="model_not_found"
        ) from error
    except ValueError as error:
        raise WorkbenchError(
            f"{file} is not valid JSON: {error}.", "Copy the model's config.json again.", kind="model_config"
        ) from error
    if not isinstance(config, dict):
        raise WorkbenchError(
            f"{file} is not a JSON object.", "Copy the model's config.json again.", kind="model_config"
        )
    return config


def build_skeleton(config: dict[str, object] | Path, rows: int | None = None, code: Path | None = None) -> Skeleton:
    """Build the module tree of a language model, or of a whole model that also reads images or audio.

    Args:
        config: the content of a ``config.json``, its path, or the path of its folder.
        rows: of the embeddings, if the configuration has fewer.
        code: the model's folder, if its own Python code is to run.

    Raises:
        WorkbenchError: the file cannot be read, or as :func:`meta_model`.
    """
    if isinstance(config, Path):
        config = read_config(config)
    before = _parse_config(config, code).get_text_config().vocab_size if rows is not None else 0
    new_tokens = max((rows or 0) - before, 0)
    if new_tokens:
        config = _with_vocabulary(config, before + new_tokens)
    model = meta_model(config, code)
    output = model.get_output_embeddings()
    root = _module_tree("", model, _ModelContext(model, unquantized_modules(model, config)))
    if rows is not None:
        root = replace(root, facts={**root.facts, "new_tokens": new_tokens})
    return Skeleton(
        architecture=type(model).__name__,
        model_type=str(model.config.model_type),
        root=root,
        output=next((name for name, module in model.named_modules() if module is output), None) if output else None,
        config=config,
    )


def _with_vocabulary(config: dict[str, object], rows: int) -> dict[str, object]:
    text = config.get("text_config")
    if isinstance(text, dict) and "vocab_size" not in config:
        return {**config, "text_config": {**text, "vocab_size": rows}}
    if isinstance(text, dict):
        return {**config, "vocab_size": rows, "text_config": {**text, "vocab_size": rows}}
    return {**config, "vocab_size": rows}


def meta_model(config: dict[str, object], code: Path | None = None) -> "PreTrainedModel":
    """Instantiate the transformers model of a configuration on torch's meta device, in bfloat16.

    Args:
        code: as in :func:`build_skeleton`.

    Raises:
        WorkbenchError: transformers does not know the architecture or cannot build the model, or the model does not
            continue text.
    """
    # PEFT imports bitsandbytes, which warns on some CPUs that it could not download an optional kernel.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import torch

    parsed = _parse_config(config, code)
    if code is None:
        check_continues_text(config)
    try:
        with torch.device("meta"):
            return auto_class(config).from_config(parsed, dtype=torch.bfloat16, trust_remote_code=code is not None)
    except Exception as error:  # an unchecked configuration may make a constructor raise anything
        raise _cannot_build(parsed.model_type, error) from error


def _parse_config(config: dict[str, object], code: Path | None = None) -> "PreTrainedConfig":
    from transformers import CONFIG_MAPPING

    model_type = config.get("model_type")
    if code is None and not model_type:
        check_continues_text(config)  # says that it is missing
    if code is None and (not isinstance(model_type, str) or model_type not in CONFIG_MAPPING):
        raise WorkbenchError(
            f"transformers has no model type {model_type!r}.",
            "Choose a model of a known architecture, or update transformers.",
            kind="unknown_architecture",
        )
    for key in _LAYER_KEYS:
        layers = config.get(key)
        if isinstance(layers, int) and layers > LAYER_LIMIT:
            raise WorkbenchError(
                f"The configuration asks for {layers} layers ({key}); the limit is {LAYER_LIMIT}.",
                "Check the model's config.json.",
                kind="model_config",
            )
    structure = {key: _with_floats(value) for key, value in config.items() if key not in _NON_STRUCTURAL_KEYS}
    try:
        return (
            _config_of_own_code(code, structure)
            if code is not None
            else CONFIG_MAPPING[model_type].from_dict(structure)
        )
    except Exception as error:  # see meta_model
        raise _cannot_build(str(model_type), error) from error


def _config_of_own_code(folder: Path, structure: dict[str, object]) -> "PreTrainedConfig":
    """The configuration as the class in the model's folder reads it."""
    from transformers import AutoConfig

    parsed = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    names_classes, kind = parsed.__dict__.get("auto_map"), type(parsed)
    parsed = kind.from_dict(structure)
    parsed.auto_map, parsed._name_or_path = names_classes, str(folder)
    return parsed


def _with_floats(value: object) -> object:
    """A value of a configuration with ``{"__float__": "Infinity"}``, as transformers writes it, as a number.

    Anything else stays the same object: transformers completes ``rope_scaling`` in place, and the keys of shipped
    traces cover what it writes there.
    """
    if isinstance(value, dict) and set(value) == {"__float__"}:
        return float(value["__float__"])
    if isinstance(value, dict):
        changed = {key: new for key, inner in value.items() if (new := _with_floats(inner)) is not inner}
        return {**value, **changed} if changed else value
    if isinstance(value, list):
        converted = [_with_floats(inner) for inner in value]
        return converted if any(new is not inner for new, inner in zip(converted, value, strict=True)) else value
    return value


def _cannot_build(model_type: str, error: Exception) -> WorkbenchError:
    if isinstance(error, ImportError) and (missing := re.search(r"requires the (\w+) library", str(error))):
        package = _PACKAGES.get(missing[1], missing[1])
        return WorkbenchError(
            f"A {model_type} model needs the package {package}, which is not installed.",
            f"`pip install {package}`, then `loraworkbench engine restart`.",
            kind="missing_package",
        )
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return WorkbenchError(
        f"transformers cannot build this {model_type} configuration: {reason[0]}",
        "Check the model's config.json.",
        kind="model_config",
    )


def unquantized_modules(model: "PreTrainedModel", config: Mapping[str, object]) -> list[str]:
    """Names of the modules that transformers' quantizers skip: those that ``config`` lists, else the default ones."""
    from transformers.quantizers.base import get_keys_to_not_convert

    stored = stored_quantization(config)
    skipped = stored.skipped if stored is not None else None
    return [*(get_keys_to_not_convert(model) if skipped is None else skipped), *model._keep_in_fp32_modules]


class _ModelContext:
    """The model with the lookups that describing one of its modules needs."""

    def __init__(self, model: "PreTrainedModel", not_converted: list[str]) -> None:
        self.model = model
        self.not_converted = not_converted
        self.frozen = frozen_parts(model)
        self._first_names: dict[int, str] = {id(parameter): name for name, parameter in model.named_parameters()}

    def tied_to(self, name: str, parameter: "torch.Tensor") -> str | None:
        """The first of a tied parameter's names; None if that is ``name``, or the parameter is not tied."""
        first_name = self._first_names.get(id(parameter), name)
        return None if first_name == name else first_name


def _module_tree(path: str, module: "torch.nn.Module", context: _ModelContext) -> Module:
    children = [
        (name, _module_tree(f"{path}.{name}" if path else name, child, context))
        for name, child in module.named_children()
    ]
    kind = _kind(module)
    return Module(
        name=path.rpartition(".")[2],
        class_name=type(module).__name__,
        kind=kind,
        tensors=tuple(_tensors(path, module, context)),
        children=tuple(_fold_repeated(children)),
        facts=_facts(path, module, kind, context),
    )


def _fold_repeated(children: list[tuple[str, Module]]) -> Iterable[Module]:
    """Fold equal members of a module list (children named by numbers) into one; keep other children as they are."""
    groups: list[tuple[Module, list[int]]] = []
    for name, child in children:
        if not name.isdecimal():
            yield child
            continue
        unnamed = replace(child, name="")
        for first, indices in groups:
            if first == unnamed:
                indices.append(int(name))
                break
        else:
            groups.append((unnamed, [int(name)]))
    for first, indices in groups:
        yield replace(first, indices=tuple(indices))


def _tensors(path: str, module: "torch.nn.Module", context: _ModelContext) -> Iterable[Tensor]:
    for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
        full_name = f"{path}.{name}" if path else name
        tied_to = context.tied_to(full_name, parameter)
        yield Tensor(name, tuple(parameter.shape), _dtype(parameter), tied_to=tied_to)
    for name, buffer in module.named_buffers(recurse=False):
        yield Tensor(name, tuple(buffer.shape), _dtype(buffer), is_buffer=True)


def _dtype(tensor: "torch.Tensor") -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _kind(module: "torch.nn.Module") -> ModuleKind:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, Conv1D):
        return "conv1d"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return "convolution"
    return "other"


def _facts(path: str, module: "torch.nn.Module", kind: ModuleKind, context: _ModelContext) -> ModuleFacts:
    if not path:
        return _model_facts(context.model)
    facts = _layer_facts(path, module, kind, context)
    if frozen := context.frozen.get(path):
        facts["frozen"] = frozen
    return facts


def _layer_facts(path: str, module: "torch.nn.Module", kind: ModuleKind, context: _ModelContext) -> ModuleFacts:
    from transformers.quantizers.quantizers_utils import should_convert_module

    if kind in ("linear", "conv1d"):
        return {
            "plain": _is_plain_linear(module),
            "convertible": should_convert_module(path, context.not_converted),
        }
    if kind == "convolution":
        return {
            "in_channels": module.in_channels,
            "out_channels": module.out_channels,
            "kernel_size": list(module.kernel_size),
            "groups": module.groups,
        }
    if getattr(module, "is_transposed", False):
        return {"is_transposed": True}
    return {}


def _is_plain_linear(module: "torch.nn.Module") -> bool:
    """Whether ``module`` is exactly ``nn.Linear`` or a ``Conv1D``: ``replace_with_bnb_linear`` converts no others."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return type(module) is nn.Linear or isinstance(module, Conv1D)


def _model_facts(model: "PreTrainedModel") -> ModuleFacts:
    config = model.config.get_text_config()
    heads = _setting(config, "num_attention_heads")
    hidden = _setting(config, "hidden_size")
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = getattr(config, "tie_word_embeddings", False) or (
        # A whole model says so in the outer configuration.
        output is not None and getattr(output, "weight", None) is embedding.weight
    )
    facts: dict[str, Any] = {
        "hidden_size": hidden,
        "layers": getattr(config, "num_hidden_layers", None),
        "heads": heads,
        "kv_heads": 1 if getattr(config, "multi_query", False) else _setting(config, "num_key_value_heads") or heads,
        "head_dim": _setting(config, "head_dim") or (hidden // heads if hidden and heads else None),
        "vocab_size": getattr(config, "vocab_size", None),
        "context_length": getattr(config, "max_position_embeddings", None),
        "experts_per_token": getattr(config, "num_experts_per_tok", None),
        "tied_embeddings": bool(is_tied),
        "input_embedding": next((name for name, module in model.named_modules() if module is embedding), None),
        "float32_in_float16": sorted(model._keep_in_fp32_modules),
        "always_float32": sorted(model._keep_in_fp32_modules_strict),
        "moe_names": _moe_names(model.config.model_type),
    }
    return cast("ModuleFacts", {name: value for name, value in facts.items() if value not in (None, [])})


def _setting(config: "PreTrainedConfig", name: str) -> Any:
    """A value of a configuration; None if it has none, or another one for each layer (Gemma 4)."""
    try:
        return getattr(config, name, None)
    except RuntimeError:
        return None


def _moe_names(model_type: str) -> str | None:
    """The model family (such as ``mixtral``) by which PEFT renames targets of fused experts; None if there is none."""
    from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    if get_checkpoint_conversion_mapping(model_type) is None:
        return None
    family = _MODEL_TO_CONVERSION_PATTERN.get(model_type)
    return family if family in _MOE_TARGET_MODULE_MAPPING else None
