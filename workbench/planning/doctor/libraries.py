"""Checks which libraries and optional packages are installed."""

import os
import shutil
from collections.abc import Sequence
from importlib import metadata

from workbench.planning.doctor.check import Check
from workbench.recipe.fused_kernels import PACKAGES
from workbench.recipe.trackers import REPORTERS, is_installed


def libraries() -> Check:
    names = ("transformers", "peft", "trl", "accelerate", "datasets", "safetensors", "textual")
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check(
            "Libraries",
            "problem",
            f"missing: {', '.join(missing)}",
            "Nothing can be trained.",
            "Install loraworkbench again.",
        )
    return Check("Libraries", "ok", ", ".join(versions))


def reporters() -> Check:
    installed = [name for name in REPORTERS if is_installed(name)]
    return _optional("Reporters", installed, [name for name in REPORTERS if name not in installed])


def compiler() -> Check:
    """Only torch.compile needs a compiler, on CPU and GPU; without one a run warns and trains uncompiled."""
    names = [os.environ.get("CXX"), "g++", "clang++"]
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    return Check("C++ compiler", "ok", compiler or "none, so training.torch_compile has no effect (install g++)")


def kernels() -> Check:
    installed, missing = [], []
    for package, _ in PACKAGES.values():
        try:
            installed.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    return _optional("Kernels", installed, missing)


def _optional(name: str, installed: Sequence[str], missing: Sequence[str]) -> Check:
    """Optional packages: never a problem here; a recipe that needs a missing one reports it."""
    hint = f"not installed: {', '.join(missing)} (`pip install {' '.join(missing)}`)" if missing else ""
    return Check(name, "ok", "; ".join(filter(None, (", ".join(installed), hint))))
