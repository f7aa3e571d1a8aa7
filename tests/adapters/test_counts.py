"""Parameters and file of every method are those of PEFT, on many architectures."""

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.estimate.architectures import TINY
from workbench.adapters.registry import methods, peft_config
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import AdapterDtypes, plan_adapter
from workbench.models.build import build_skeleton
from workbench.models.skeleton import Skeleton
from workbench.recipe.sections.adapter import AdapterSection

# Each sets something apart; LoRA itself is compared on all of TINY in tests/estimate/test_adapter.py.
ARCHITECTURES = (
    "llama-tied",
    "qwen2",
    "gemma3",
    "phi3",
    "gpt2",
    "bloom",
    "opt",
    "falcon",
    "starcoder2",
    "mixtral",
    "mamba",
)

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "lora": [{"r": 8}, {"r": 4, "use_dora": True}, {"r": 8, "init_lora_weights": "orthogonal"}],
    "adalora": [{"r": 12}, {"r": 5, "lora_alpha": 7, "options": {"target_r": 3}}],
    "vera": [{"r": 8}, {"r": 5, "options": {"save_projection": False, "vera_dropout": 0.1}}],
    "loha": [{"r": 4}, {"r": 3, "rank_pattern": {"q_proj": 5}, "options": {"alpha": 3}}],
    "lokr": [{"r": 2}, {"r": 2, "options": {"decompose_both": True, "decompose_factor": 4}}, {"r": 64}],
    "miss": [{"r": 8}, {"r": 8, "options": {"init_weights": "mini", "mini_r": 4}},
             {"r": 16, "options": {"init_weights": "bat"}}],
    "oft": [{}, {"options": {"oft_block_size": 6, "block_share": True}}],
    "boft": [{}, {"options": {"boft_block_size": 16}}],
    "hra": [{"r": 4}],
    "shira": [{"r": 2}, {"r": 60}],
    "randlora": [{"r": 8}, {"r": 5, "options": {"sparse": True}}],
    "fourierft": [{"options": {"n_frequency": 50}}, {}],
    "delora": [{"r": 4}],
    "gralora": [{"r": 4}, {"r": 6, "options": {"hybrid_r": 2, "gralora_k": 3}}],
    "c3a": [{"options": {"block_size": 16}}, {"options": {"block_size": 32}}],
    "road": [{"options": {"group_size": 32}}, {"options": {"group_size": 16, "variant": "road_4"}}],
}  # fmt: skip


@lru_cache(maxsize=64)
def skeleton_of(name: str) -> Skeleton:
    return build_skeleton(TINY[name])


def sections(method: str, name: str) -> list[AdapterSection]:
    """Adapter sections of a method for a model: everywhere, on one kind of layer, and beside a module saved whole."""
    skeleton = skeleton_of(name)
    leaves = sorted({m.name for _, m in skeleton.walk() if m.kind in ("linear", "conv1d")} - {skeleton.output or ""})
    output = str(skeleton.output)
    found = []
    for knobs in SETTINGS.get(method, [{}]):
        dropout = {"lora_dropout": 0.0} if method == "lora" else {}
        found.append(AdapterSection(method=method, **knobs, **dropout))
        if "exclude_modules" in methods()[method].reads and name in ("llama", "gpt2") and not found[1:]:
            excluded = AdapterSection(method=method, exclude_modules=[leaves[0]], **knobs, **dropout)
            found += [excluded, excluded.model_copy(update={"exclude_modules": rf".*\.{leaves[-1]}"})]
        found.append(
            AdapterSection(method=method, target_modules=[leaves[0]], modules_to_save=[output], **knobs, **dropout)
        )
    return found


@pytest.mark.parametrize("method", methods())
def test_parameters_and_file_are_those_of_peft(method: str, tmp_path: Path) -> None:
    differences, accepted = [], set()
    for name in ARCHITECTURES:
        for number, section in enumerate(sections(method, name)):
            try:
                dtypes = AdapterDtypes(adapter="bfloat16", saved_whole="bfloat16", base="bfloat16")
                plan = plan_adapter(skeleton_of(name), section, dtypes)
                ours: Any = (plan.trainable_parameters, plan.total_parameters, plan.file_bytes)
            except WorkbenchError:
                ours = None
            theirs = in_peft(name, section, tmp_path / f"{name}{number}")
            if ours != theirs:
                differences.append((name, number, ours, theirs))
            elif ours is not None:
                accepted.add(name)
    assert not differences
    assert len(accepted) >= 9, accepted


def in_peft(name: str, section: AdapterSection, folder: Path) -> tuple[int, int, int] | None:
    """Trainable and all parameters as PEFT counts them, and the bytes of its file; None where PEFT refuses."""
    import torch
    from peft import get_peft_model
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = CONFIG_MAPPING[TINY[name]["model_type"]].from_dict(dict(TINY[name]))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peft = get_peft_model(model, peft_config(section))
        except (ValueError, TypeError, AttributeError):
            return None
        for key, parameter in peft.named_parameters():
            if "ranknum" in key:
                # PEFT freezes it, and trains it all the same on a 16-bit base, where it moves it to another dtype.
                parameter.requires_grad_(False)
            if parameter.requires_grad:
                parameter.data = parameter.data.to(
                    torch.float32 if methods()[section.method].is_float32(key) else torch.bfloat16
                )
        peft.save_pretrained(folder)
    trainable, total = peft.get_nb_trainable_parameters()
    return trainable, total, (folder / "adapter_model.safetensors").stat().st_size
