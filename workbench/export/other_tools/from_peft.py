"""Makes a recipe of an adapter that exists: PEFT's ``adapter_config.json``, with which a run can start."""

from collections.abc import Mapping
from pathlib import Path

from workbench.adapters.registry import adapter_method
from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported_settings import short
from workbench.recipe.schema import Recipe
from workbench.recipe.text import parse

FILE = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
# What the file says of itself, and what PEFT works out anew.
_FACTS = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "peft_version",
    "fan_in_fan_out", "megatron_core", "megatron_config", "runtime_config", "loftq_config", "eva_config",
    "corda_config", "ensure_weight_tying", "use_qalora", "qalora_group_size",
})  # fmt: skip
_TASKS = ("CAUSAL_LM", None)


def from_peft(config: Mapping[str, object], folder: Path, origin: str) -> tuple[Recipe, list[str]]:
    """Convert an adapter's configuration to a recipe that starts from it; also lists what a recipe does not have.

    Raises:
        WorkbenchError: the adapter is of a method or a task that is not trained here, or has no base.
    """
    method = adapter_method(config)
    if config.get("task_type") not in _TASKS:
        raise WorkbenchError(
            f"{origin} is for another task (task_type: {config['task_type']}).",
            "Give the configuration of an adapter for text: task_type CAUSAL_LM.",
            kind="recipe",
        )
    if not config.get("base_model_name_or_path"):
        raise WorkbenchError(
            f"{origin} names no base (base_model_name_or_path).", "Set it to the model's id or folder.", kind="recipe"
        )
    section, refused = method.section(config)
    lacking = [f"{name}: {short(value)}" for name, value in refused.items()]
    known = {*_FACTS, *method.reads, *method.options}
    lacking += [f"{name}: {short(value)}" for name, value in config.items() if name not in known and value]
    if (folder / _WEIGHTS).is_file():
        section["continue_from"] = str(folder)
    model = {"source": config["base_model_name_or_path"], "revision": config.get("revision")}
    recipe = parse({"model": model, "adapter": section, "quantization": {"method": "none"}}, origin)
    return recipe, [*lacking, "an adapter names no data and no training: set data.source, and look through the rest"]
