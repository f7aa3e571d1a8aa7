"""Reads the literal settings of a notebook or script that trains with Unsloth or TRL. Runs nothing.

The calls that are read: ``FastLanguageModel.from_pretrained`` and ``get_peft_model``, ``from_pretrained`` of
transformers' models, ``LoraConfig``, ``SFTConfig`` and its kin, ``load_dataset`` and ``train_on_responses_only``.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.export.other_tools.from_trl import from_trl
from workbench.recipe.schema import Recipe

SUFFIXES = (".ipynb", ".py")
_CONFIGS = {
    "SFTConfig": "sft",
    "TrainingArguments": "sft",
    "DPOConfig": "dpo",
    "KTOConfig": "kto",
    "ORPOConfig": "orpo",
}
# Names of a model's and an adapter's arguments in TRL's command line.
_MODEL = {"model_name": "model_name_or_path", "pretrained_model_name_or_path": "model_name_or_path",
          "max_seq_length": "max_length", "revision": "model_revision"}  # fmt: skip
_ADAPTER = {"r": "lora_r", "target_modules": "lora_target_modules", "modules_to_save": "lora_modules_to_save"}
# Arguments that change neither the model nor the training.
_DROPPED = frozenset({
    "use_gradient_checkpointing", "random_state", "dtype", "token", "device_map", "full_finetuning", "fast_inference",
    "gpu_memory_utilization", "task_type", "dataset_num_proc", "torch_dtype", "num_proc",
})  # fmt: skip
_MOST_BYTES = 20_000_000


def from_notebook(file: Path) -> tuple[Recipe, list[str]]:
    """Convert a notebook or script to a recipe; also lists what a recipe does not have, and what is no literal.

    Raises:
        WorkbenchError: it cannot be read, or has no call that makes an adapter.
    """
    found = _Found()
    for call in _calls(file, found):
        found.add(call)
    if not found.has_adapter:
        raise WorkbenchError(
            f"{file} makes no adapter with FastLanguageModel.get_peft_model or LoraConfig.",
            "Give a notebook or script that calls one of them.",
            kind="recipe",
        )
    values = {**_UNSLOTH, **found.values} if found.is_unsloth else found.values
    recipe, lacking = from_trl({"use_peft": True, **values}, file.resolve().parent, str(file), found.kind or "sft")
    return recipe, [*lacking, *(f"{name}: not a literal, so it is not read" for name in found.unread)]


# Unsloth's defaults where they differ from TRL's.
_UNSLOTH: dict[str, object] = {
    "load_in_4bit": True, "max_length": 2048, "lora_r": 16, "lora_alpha": 16, "lora_dropout": 0.0,
    "use_bnb_nested_quant": True,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}  # fmt: skip


class _Found:
    """What the calls of a file say, by the names of TRL's command line."""

    def __init__(self) -> None:
        self.names: dict[str, object] = {}
        self.values: dict[str, object] = {}
        self.unread: list[str] = []
        self.kind = ""
        self.has_adapter = self.is_unsloth = False

    def add(self, call: ast.Call) -> None:
        """Take one call, if it is one that is known."""
        name = _name_of(call.func)
        last = name.rpartition(".")[2]
        if last == "from_pretrained" and ("Model" in name or "FastLanguage" in name or "FastVision" in name):
            self.is_unsloth |= name.startswith("Fast")
            self._take(call, _MODEL, positional="model_name_or_path")
        elif last == "get_peft_model" and name.startswith("Fast"):
            self.has_adapter = self.is_unsloth = True
            self._take(call, _ADAPTER)
        elif last == "LoraConfig":
            self.has_adapter = True
            self._take(call, _ADAPTER)
        elif last in _CONFIGS:
            self.kind = _CONFIGS[last]
            self._take(call, {"max_seq_length": "max_length"})
        elif last == "load_dataset":
            self._take(call, {"name": "dataset_config", "split": "dataset_train_split"}, positional="dataset_name")
        elif last == "train_on_responses_only":
            self.values["assistant_only_loss"] = True

    def _take(self, call: ast.Call, names: dict[str, str], positional: str = "") -> None:
        given = [(positional, call.args[0])] if positional and call.args else []
        given += [(names.get(word.arg, word.arg), word.value) for word in call.keywords if word.arg is not None]
        for name, node in given:
            if name in _DROPPED:
                continue
            try:
                value = self._literal(node)
            except ValueError:
                self.unread.append(name)
                continue
            if value is not None:
                self.values[name] = value

    def _literal(self, node: ast.expr) -> object:
        """The value of a literal, or of a name that was given one.

        Raises:
            ValueError: it is something else.
        """
        if isinstance(node, ast.Name) and node.id in self.names:
            return self.names[node.id]
        value: object = ast.literal_eval(node)
        return value


def _calls(file: Path, found: _Found) -> Iterator[ast.Call]:
    """The calls of a file in their order; names that are given a literal on the way are kept in ``found``."""
    for source in _cells(file):
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                try:
                    found.names[node.targets[0].id] = ast.literal_eval(node.value)
                except (ValueError, RecursionError):
                    found.names.pop(node.targets[0].id, None)
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _cells(file: Path) -> list[str]:
    """The code of a notebook by cells, without lines for the shell; of a script the whole.

    Raises:
        WorkbenchError: it cannot be read.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        text = file.read_text(encoding="utf-8-sig")
        cells = json.loads(text)["cells"] if file.suffix == ".ipynb" else [{"cell_type": "code", "source": text}]
        sources = [_text(cell) for cell in cells if cell.get("cell_type") == "code"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkbenchError(
            f"{file} cannot be read: {reason}.", "Give a Jupyter notebook or a Python script.", kind="recipe"
        ) from None
    return [
        "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
        for source in sources
    ]


def _text(cell: dict[str, Any]) -> str:
    source = cell["source"]
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def _name_of(node: ast.expr) -> str:
    """The dotted name of what is called, such as ``FastLanguageModel.get_peft_model``."""
    if isinstance(node, ast.Attribute):
        return f"{_name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
