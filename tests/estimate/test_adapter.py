"""The plan of an adapter against PEFT itself: on the meta device for counts, real files for bytes."""

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.tiny_configs import tiny_config
from tests.estimate.architectures import TINY
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.new_rows import token_rows
from workbench.estimate.adapter.plan import AdapterDtypes, plan_adapter
from workbench.estimate.adapter.targets import find_targets
from workbench.models.build import build_skeleton, meta_model
from workbench.models.catalog import catalog_skeleton
from workbench.models.language_part import exclusion_pattern, frozen_parts
from workbench.models.skeleton import Skeleton
from workbench.recipe.sections.adapter import AdapterSection

Knobs = dict[str, Any]


@cache
def skeleton_of(name: str) -> Skeleton:
    return build_skeleton(TINY[name])


def leaves(name: str) -> list[str]:
    """Last parts of the names of the linear layers, but for the output's."""
    skeleton = skeleton_of(name)
    found = (key for key, module in skeleton.walk() if module.kind in ("linear", "conv1d") and key != skeleton.output)
    return list(dict.fromkeys(key.rpartition(".")[2] for key in found))


def knobs_for(name: str) -> dict[str, Knobs]:
    """The settings that a naive r·(in + out) gets wrong, and the plain ones, in the names of this architecture."""
    first, last = leaves(name)[0], leaves(name)[-1]
    skeleton = skeleton_of(name)
    embedding = str(skeleton.root.facts["input_embedding"]).rpartition(".")[2]
    output = str(skeleton.output).rpartition(".")[2]
    return {
        "all-linear": {"target_modules": "all-linear", "r": 8},
        "ALL-LINEAR with dropout": {"target_modules": "All-Linear", "r": 4, "lora_dropout": 0.1},
        "two names": {"target_modules": [first, last], "r": 16},
        "regex": {"target_modules": rf".*\.[02]\..*({first}|{last})", "r": 8},
        "dora": {"target_modules": [first], "r": 8, "use_dora": True},
        "lora_bias": {"target_modules": [first], "r": 8, "lora_bias": True},
        "bias all": {"target_modules": [first], "r": 8, "bias": "all"},
        "bias lora_only": {"target_modules": [first, last], "r": 8, "bias": "lora_only"},
        "embedding": {"target_modules": [first, embedding], "r": 8},
        "output": {"target_modules": [first, output], "r": 8},
        "both ends": {"target_modules": [embedding, output], "r": 4},
        "dora embedding": {"target_modules": [embedding], "r": 4, "use_dora": True},
        "output saved": {"target_modules": [first], "r": 8, "modules_to_save": [output]},
        "both saved": {"target_modules": "all-linear", "r": 8, "modules_to_save": [output, embedding]},
        "rank pattern": {"target_modules": [first, last], "r": 8, "rank_pattern": {last: 3, rf"0\..*{first}": 5}},
        "some layers": {"target_modules": [first, last], "r": 8, "layers_to_transform": [0, 2]},
        "layers by pattern": {
            "target_modules": [first],
            "r": 8,
            "layers_to_transform": [1],
            "layers_pattern": ["layers", "h", "blocks"],
        },
        "excluded": {"target_modules": "all-linear", "r": 8, "exclude_modules": [last]},
        "excluded by regex": {"target_modules": [first, last], "r": 8, "exclude_modules": rf".*\.1\..*{first}"},
        "layers with regex": {"target_modules": "all-linear", "r": 8, "layers_to_transform": [0]},
        "nothing": {"target_modules": ["no_such_layer"], "r": 8},
        "a block": {"target_modules": [skeleton_of(name).root.children[0].name], "r": 8},
        "experts": {"target_modules": ["gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"], "r": 8},
        "half an expert": {"target_modules": ["w1", "gate_proj"], "r": 8},
        "experts by regex": {"target_modules": r".*experts.*(gate_proj|up_proj|w1|w3|down_proj)", "r": 8},
        "router": {"target_modules": ["gate"], "r": 6},
        "odd orthogonal": {"target_modules": [first], "r": 7, "init_lora_weights": "orthogonal"},
    }


def lora_settings(knobs: Knobs) -> AdapterSettings:
    tupled = {key: tuple(value) if isinstance(value, list) else value for key, value in knobs.items()}
    if "rank_pattern" in tupled:
        tupled["rank_pattern"] = tuple(tupled["rank_pattern"].items())
    return AdapterSettings(**tupled)


def peft_counts(name: str, knobs: Knobs) -> tuple[int, int] | None:
    """Trainable and total parameters as PEFT counts them; None where PEFT refuses."""
    from peft import LoraConfig, get_peft_model

    try:
        model = get_peft_model(
            meta_model(TINY[name]), LoraConfig(task_type="CAUSAL_LM", **knobs), low_cpu_mem_usage=True
        )
    except (ValueError, TypeError):
        return None
    return model.get_nb_trainable_parameters()


@pytest.mark.parametrize("name", TINY)
def test_counts_are_those_of_peft(name: str) -> None:
    differences = []
    for title, knobs in knobs_for(name).items():
        expected = peft_counts(name, knobs)
        try:
            plan = plan_adapter(skeleton_of(name), lora_settings(knobs))
            ours = (plan.trainable_parameters, plan.total_parameters)
        except WorkbenchError:
            ours = None
        if ours != expected:
            differences.append((title, ours, expected))
    assert not differences


SAVED = ["all-linear", "dora", "bias all", "both ends", "dora embedding", "both saved", "rank pattern", "experts"]


# Twice as many bytes a value in float32: that depends on no architecture.
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "bfloat16") for name in TINY), *((name, "float32") for name in list(TINY)[::4])]
)
def test_file_is_as_large_as_the_one_peft_writes(name: str, dtype: str, tmp_path: Path) -> None:
    differences = []
    for title in SAVED:
        knobs = knobs_for(name)[title]
        expected = saved_bytes(name, knobs, dtype, tmp_path / title)
        try:
            dtypes = AdapterDtypes(adapter=dtype, saved_whole=dtype, base="bfloat16")
            ours = plan_adapter(skeleton_of(name), lora_settings(knobs), dtypes).file_bytes
        except WorkbenchError:
            ours = None
        if ours != expected:
            differences.append((title, ours, expected))
    assert not differences


def saved_bytes(name: str, knobs: Knobs, dtype: str, folder: Path) -> int | None:
    """Bytes of the file that PEFT saves for a real model whose trained weights were brought to ``dtype``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = CONFIG_MAPPING[TINY[name]["model_type"]].from_dict(dict(TINY[name]))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    try:
        peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **knobs))
    except (ValueError, TypeError):
        return None
    for key, parameter in peft.named_parameters():
        if parameter.requires_grad and "lora_magnitude_vector" not in key:
            parameter.data = parameter.data.to(getattr(torch, dtype))
    peft.save_pretrained(folder)
    return (folder / "adapter_model.safetensors").stat().st_size


RESIZED = [name for name in ("llama", "llama-tied", "gpt2", "qwen2", "gemma3", "mixtral") if name in TINY]


@pytest.mark.parametrize("name", RESIZED)
def test_rows_for_new_tokens_are_those_of_peft(name: str, tmp_path: Path) -> None:
    """The model is resized, and the new rows are trained by PEFT's ``trainable_token_indices``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    rows = skeleton_of(name).root.facts["vocab_size"] + 5
    skeleton = build_skeleton(TINY[name], rows)
    first = leaves(name)[0]
    for knobs in (
        {"target_modules": [first], "r": 8},
        {"target_modules": [first], "r": 4, "modules_to_save": ["lm_head"]},
    ):
        settings = lora_settings(knobs)
        if "modules_to_save" in knobs and skeleton.root.facts["tied_embeddings"]:
            with pytest.raises(WorkbenchError, match="is tied to"):
                plan_adapter(skeleton, settings)
            continue
        config = CONFIG_MAPPING[TINY[name]["model_type"]].from_dict(dict(TINY[name]))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.resize_token_embeddings(rows, mean_resizing=False)
        peft = get_peft_model(
            model,
            LoraConfig(task_type="CAUSAL_LM", trainable_token_indices=token_rows(skeleton, settings) or None, **knobs),
        )
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
        plan = plan_adapter(skeleton, settings)
        assert (plan.trainable_parameters, plan.total_parameters) == peft.get_nb_trainable_parameters()
        peft.save_pretrained(tmp_path, save_embedding_layers=False)
        assert plan.file_bytes == (tmp_path / "adapter_model.safetensors").stat().st_size


def test_most_of_these_settings_are_accepted() -> None:
    """A matrix in which everything is refused would prove nothing."""
    accepted = [
        name
        for name in ("llama", "mixtral", "gpt2", "falcon")
        for knobs in knobs_for(name).values()
        if peft_counts(name, knobs)
    ]
    assert len(accepted) > 60


ARCHITECTURES = st.sampled_from(sorted(TINY))


@st.composite
def random_knobs(draw: st.DrawFn, name: str) -> Knobs:
    skeleton = skeleton_of(name)
    names = st.sampled_from(
        [*leaves(name), "lm_head", "embed_tokens", "gate", "w1", "w2", "w3", "wte", "no_such_layer"]
    )
    targets: Any = draw(
        st.one_of(
            st.just("all-linear"),
            st.lists(names, min_size=1, max_size=4, unique=True),
            st.lists(names, min_size=1, max_size=3, unique=True).map(lambda n: rf".*\.({'|'.join(n)})"),
            st.integers(0, 2).map(lambda i: rf".*\.{i}\..*(proj|dense|fc).*"),
        )
    )
    knobs: Knobs = {
        "target_modules": targets,
        "r": draw(st.integers(1, 80)),
        "use_dora": draw(st.booleans()),
        "bias": draw(st.sampled_from(["none", "all", "lora_only"])),
        "lora_dropout": draw(st.sampled_from([0.0, 0.0, 0.1])),
    }
    if draw(st.booleans()):
        knobs["rank_pattern"] = draw(st.dictionaries(st.sampled_from(leaves(name)), st.integers(1, 99), max_size=2))
    if draw(st.booleans()) and isinstance(targets, list):
        knobs["layers_to_transform"] = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True))
    if draw(st.booleans()):
        knobs["modules_to_save"] = [str(skeleton.output)]
    return knobs


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), name=ARCHITECTURES)
def test_random_settings_count_as_peft_counts(data: st.DataObject, name: str) -> None:
    knobs = data.draw(random_knobs(name))
    try:
        plan = plan_adapter(skeleton_of(name), lora_settings(knobs))
        ours = (plan.trainable_parameters, plan.total_parameters)
    except WorkbenchError:
        ours = None
    assert ours == peft_counts(name, knobs)


@pytest.mark.parametrize(
    ("model", "adapter", "trainable", "total"),
    [
        (
            "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
            {"r": 16, "target_modules": ["q_proj", "v_proj"]},
            2_252_800,
            1_102_301_184,
        ),
        ("meta-llama/Llama-2-7b-hf", {"r": 8, "target_modules": ["q_proj", "v_proj"]}, 4_194_304, 6_742_609_920),
        (
            "meta-llama/Llama-3.2-3B",
            {"r": 16, "target_modules": ["q_proj", "v_proj"]},
            4_587_520,
            3_212_749_824 + 4_587_520,
        ),
        (
            "meta-llama/Llama-3.2-3B",
            {"r": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
            18_350_080,
            3_212_749_824 + 18_350_080,
        ),
        ("meta-llama/Llama-3.2-3B", {"r": 256, "target_modules": "all-linear"}, 389_021_696, 3_601_771_520),
    ],
)
def test_published_counts(model: str, adapter: Knobs, trainable: int, total: int) -> None:
    skeleton = catalog_skeleton(model)
    assert skeleton is not None
    plan = plan_adapter(skeleton, AdapterSection(**adapter))
    assert (plan.trainable_parameters, plan.total_parameters) == (trainable, total)
    assert sum(m.parameters * m.count for m in plan.modules) == trainable
    for module in plan.modules:
        assert module.parameters == sum(math.prod(tensor.shape) for tensor in module.tensors)


def test_refusals_name_what_is_near() -> None:
    llama = catalog_skeleton("meta-llama/Llama-3.2-1B")
    mamba = catalog_skeleton("state-spaces/mamba-130m-hf")
    mixtral = catalog_skeleton("mistralai/Mixtral-8x7B-Instruct-v0.1")
    assert llama
    assert mamba
    assert mixtral
    with pytest.raises(WorkbenchError, match="Did you mean q_proj"):
        plan_adapter(llama, AdapterSection(target_modules=["q_porj"]))
    with pytest.raises(WorkbenchError, match="out_proj"):
        plan_adapter(mamba, AdapterSection())
    with pytest.raises(WorkbenchError, match="lora_dropout"):
        plan_adapter(mixtral, AdapterSection(lora_dropout=0.05))
    with pytest.raises(WorkbenchError, match="cannot be adapted without w3"):
        plan_adapter(mixtral, AdapterSection(target_modules=["w1"], lora_dropout=0.0))
    with pytest.raises(WorkbenchError, match="not a valid regular expression"):
        plan_adapter(llama, AdapterSection(target_modules="(q_proj"))
    with pytest.raises(WorkbenchError, match="modules_to_save"):
        plan_adapter(llama, AdapterSection(modules_to_save=["lm_haed"]))


def test_a_name_that_hits_nothing_beside_others_is_told() -> None:
    llama = catalog_skeleton("meta-llama/Llama-3.2-1B")
    assert llama
    assert plan_adapter(llama, AdapterSection(target_modules=["q_proj", "v_porj"])).unmatched == ("v_porj",)


# Routers as layers of PyTorch, as layers that return a pair, and as weights of their own.
@pytest.mark.parametrize(
    "name",
    ["afmoe", "jetmoe", "longcat_flash", "llama4_text", "qwen3_moe", "gpt_oss", "granitemoe", "deepseek_v3"],
)
def test_no_router_gets_an_adapter_by_default(name: str) -> None:
    from peft import LoraConfig, get_peft_model

    config = tiny_config(name).to_dict()
    targets = find_targets(build_skeleton(config), AdapterSettings.of(AdapterSection(lora_dropout=0.0)))
    ours = {site.name for target in targets.modules for site in target.sites}
    model = meta_model(config)
    exclude = exclusion_pattern(frozen_parts(model)) or None
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", exclude_modules=exclude)
    assert ours == set(get_peft_model(model, lora, low_cpu_mem_usage=True).base_model.targeted_module_names)
    assert not [layer for layer in ours if re.search(r"router|\.gate$", layer)]
