"""Exports an adapter that no run of this home made: a PEFT folder on a base that the user names."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.engine.model.adapter_folder import check_adapter
from workbench.errors import WorkbenchError
from workbench.export.request import WITHOUT_WEIGHTS, Target
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, to_yaml
from workbench.runs.folder import RunFolder
from workbench.storage.folders import entries
from workbench.storage.paths import Home


def is_bare_adapter(name: str) -> bool:
    """Whether a name is the folder of an adapter that belongs to no run."""
    folder = Path(name).expanduser().absolute()
    is_adapter = (folder / "adapter_config.json").is_file()
    return is_adapter and not any(
        RunFolder(place).recipe_file.is_file() for place in (folder.parent, folder.parents[1])
    )


@contextmanager
def run_of_adapter(home: Home, name: str, base: str, target: Target) -> Iterator[RunFolder]:
    """Within, a run folder without a journal that has the adapter, as an export takes it.

    Args:
        base: source of the base; empty for the one that the adapter names.

    Raises:
        WorkbenchError: it is no adapter, names no base, or the target repeats a training.
    """
    folder = Path(name).expanduser().absolute()
    config = check_adapter(folder)
    if target in WITHOUT_WEIGHTS:
        raise WorkbenchError(
            f"The export {target} repeats a training, and {folder} is an adapter without a run.",
            "Export it as adapter, merged, gguf, gguf-lora, ollama, vllm, tgi or hub.",
            kind="no_run",
        )
    source = base or config.get("base_model_name_or_path")
    if not isinstance(source, str) or not source:
        raise WorkbenchError(
            f"The adapter in {folder} does not name its base model.", "Give the base with --base.", kind="adapter"
        )
    # Its rows of new tokens are there only in a resized base.
    resizes = bool(config.get("trainable_token_indices"))
    changes = {"model.source": source, "model.resize_embeddings": resizes, "quantization.method": "none"}
    if isinstance(rank := config.get("r"), int):
        changes["adapter.r"] = rank
    home.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.cache, prefix=".adapter-") as work:
        run = RunFolder(Path(work) / (folder.name or "adapter"))
        run.adapter.mkdir(parents=True)
        for file in entries(folder):
            if file.is_file() and file.name != "README.md" and file.suffix not in (".bin", ".pt", ".pth"):
                shutil.copyfile(file, run.adapter / file.name)
        run.recipe_file.write_text(to_yaml(edit(Recipe(), changes)), encoding="utf-8")
        yield run
