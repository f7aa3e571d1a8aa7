"""A folder with an adapter: whether it can be used, and whether it has changed."""

import json
from pathlib import Path

from workbench.adapters.registry import adapter_method
from workbench.errors import WorkbenchError
from workbench.storage.lfs import refuse_lfs_pointer


def adapter_stamp(folder: Path) -> tuple[int, int]:
    """Modification time and size of an adapter's weights: changes whenever the folder is written again."""
    try:
        stat = (folder / "adapter_model.safetensors").stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def check_adapter(folder: Path) -> dict[str, object]:
    """Read the configuration of a PEFT adapter folder, and check that its weights are safetensors.

    Raises:
        WorkbenchError: it is no adapter folder, its files are damaged or Git LFS pointers, or its method is unknown.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        refuse_lfs_pointer(folder / name)
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkbenchError(
            f"There is no adapter in {folder}.",
            "Give a run that saved an adapter, or a folder with adapter_config.json.",
            kind="no_adapter",
        ) from None
    except ValueError as error:
        raise WorkbenchError(
            f"{folder / 'adapter_config.json'} is damaged: {error}.", "Save the adapter again."
        ) from None
    if not (folder / "adapter_model.safetensors").is_file():
        raise WorkbenchError(
            f"{folder} has no adapter_model.safetensors.",
            "Save the adapter as safetensors; pickle files are not loaded.",
        )
    config = config if isinstance(config, dict) else {}
    adapter_method(config)
    return config
