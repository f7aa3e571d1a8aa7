"""Says why a folder or file on this machine cannot be used as a model, and what to do."""

import shlex
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.local import (
    ADAPTER_CONFIG,
    WEIGHTS_INDEX,
    lfs_pointer_in,
    read_config,
    weight_files,
    what_is_missing,
)
from workbench.models.remote_code import remote_code
from workbench.storage.folders import entries
from workbench.storage.lfs import lfs_pointer_error


def unusable_model(path: Path, with_code: bool = False) -> WorkbenchError:
    """The error that says why a path cannot be used as a model; ``with_code``: its own code is to run."""
    if not path.exists():
        return WorkbenchError(
            f"No model at {path}.", "Check model.subfolder: it is a folder inside model.source.", kind="no_model"
        )
    if path.is_file():
        return WorkbenchError(
            f"{path} is not a model: expected a folder or a .gguf file.",
            "Give the folder that contains it.",
            kind="no_model",
        )
    if (path / ADAPTER_CONFIG).is_file():
        return _has_adapter(path)
    ggufs = [file for file in entries(path) if file.suffix == ".gguf"]
    if ggufs and not (path / "config.json").is_file():
        return WorkbenchError(
            f"{path} contains GGUF files, not safetensors.", f"Give the file itself: {ggufs[0]}", kind="no_safetensors"
        )
    match what_is_missing(path):
        case "lfs":
            return lfs_pointer_error(lfs_pointer_in(path, weight_files(path)[0]) or path)
        case "config":
            return WorkbenchError(f"{path} has no config.json.", "Give a model folder.", kind="no_model")
        case "tokenizer":
            return WorkbenchError(
                f"{path} has no tokenizer.", "Copy tokenizer.json and tokenizer_config.json into it.", kind="no_model"
            )
        case "only_pickle":
            return _only_pickles(path)
        case "shards":
            return _lacks_shards(path)
        case "names":
            return _other_names(path)
        case "" if with_code:
            missing = ", ".join(remote_code(path).missing_in(path))
            return WorkbenchError(
                f"{path} lacks Python code that its configuration names: {missing}.",
                "Copy these files from the model's repository into it.",
                kind="model_damaged",
            )
        case _:
            return WorkbenchError(
                f"{path} has a configuration but no weights: enough to inspect and estimate, not to train.",
                "Copy the model's *.safetensors into it.",
                kind="no_safetensors",
            )


def _has_adapter(path: Path) -> WorkbenchError:
    if not (path / "config.json").is_file():
        return WorkbenchError(
            f"{path} contains an adapter, not a model.",
            "Use the model named as base_model_name_or_path in its adapter_config.json.",
            kind="no_model",
        )
    return WorkbenchError(
        f"{path} contains a model and an adapter ({ADAPTER_CONFIG}), which transformers would load together.",
        f"Move {ADAPTER_CONFIG} and adapter_model.safetensors to another folder to use the model alone; or export the "
        "adapter on its base as `merged`, and use that.",
        kind="no_model",
    )


def _only_pickles(path: Path) -> WorkbenchError:
    loader = "AutoModelForImageTextToText" if "vision_config" in read_config(path) else "AutoModelForCausalLM"
    code = (
        f"from transformers import {loader} as M; p={str(path)!r}; "
        "M.from_pretrained(p, dtype='auto').save_pretrained(p)"
    )
    return WorkbenchError(
        f"{path} has its weights only as pickle files, which can run code when loaded; they are not used.",
        f"If you trust them, convert once: `python -c {shlex.quote(code)}`.",
        kind="no_safetensors",
    )


def _lacks_shards(path: Path) -> WorkbenchError:
    files = weight_files(path)[0]
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return WorkbenchError(
            f"The index of {path}'s weight files ({WEIGHTS_INDEX}) cannot be read.", "Copy it again.",
            kind="model_damaged",
        )  # fmt: skip
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return WorkbenchError(
        f"{path} lacks {len(missing)} of the {len(files)} weight files that its index lists: "
        f"{', '.join(missing[:3])}{more}.",
        "Copy or download these files into it.",
        kind="model_damaged",
    )


def _other_names(path: Path) -> WorkbenchError:
    files = [file.name for file in weight_files(path)[0]]
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    cure = f"Copy {WEIGHTS_INDEX}, and the shards that are missing, from the model's repository into it."
    if any(name.startswith("consolidated") for name in files):
        cure = "This is the publisher's own format: use the same model in the format of transformers."
    elif len(files) == 1 and "-of-" not in files[0]:
        cure = "If it is a model as transformers saves it, rename it to model.safetensors."
    return WorkbenchError(
        f"{path} has the weight files {', '.join(files[:3])}{more}, but neither model.safetensors nor {WEIGHTS_INDEX}, "
        "by which transformers finds them.",
        cure,
        kind="no_safetensors",
    )
