"""The planned footprint of the base against real models, loaded from disk and really quantised on the CPU."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.estimate.architectures import TINY
from workbench.estimate.footprint import Storage, measure_base
from workbench.models.build import build_skeleton
from workbench.models.catalog import catalog_skeleton
from workbench.models.skeleton import Skeleton

STORAGES = {
    "float32": Storage("none", False, "float32"),
    "bfloat16": Storage("none", False, "bfloat16"),
    "float16": Storage("none", False, "float16"),
    "int8": Storage("int8", False, "bfloat16"),
    "int8 in float16": Storage("int8", False, "float16"),
    "nf4": Storage("nf4", False, "bfloat16"),
    "nf4 double": Storage("nf4", True, "bfloat16"),
    "fp4 in float32": Storage("fp4", True, "float32"),
}


@cache
def skeleton_of(name: str) -> Skeleton:
    return build_skeleton(TINY[name])


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every tiny model with random weights, saved as transformers saves it."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    folders = {}
    for name, config in TINY.items():
        folders[name] = tmp_path_factory.mktemp(name)
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]].from_dict(dict(config)))
        model.to(torch.bfloat16).save_pretrained(folders[name])
    return folders


def load(folder: Path, storage: Storage) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = None
    if storage.method == "int8":
        quantization = BitsAndBytesConfig(load_in_8bit=True)
    elif storage.is_4bit:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=storage.method, bnb_4bit_use_double_quant=storage.double_quant
        )
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, storage.dtype), quantization_config=quantization, device_map="cpu"
    )


def bytes_in_memory(model: Any) -> int:
    """Every storage that the model holds, once: weights, buffers, and what unpacks quantised weights."""
    import torch

    storages = {}

    def add(tensor: Any) -> None:
        if isinstance(tensor, torch.Tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()

    for parameter in model.parameters():
        add(parameter)
        add(getattr(parameter, "SCB", None))
        state = getattr(parameter, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            for attribute in ("absmax", "code", "offset"):
                add(getattr(part, attribute, None))
    for buffer in model.buffers():
        add(buffer)
    return sum(storages.values())


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", TINY)
def test_footprint_of_real_models(name: str, storage: str, saved_models: dict[str, Path]) -> None:
    model = load(saved_models[name], STORAGES[storage])
    planned = measure_base(skeleton_of(name), STORAGES[storage])
    assert planned.footprint_bytes == model.get_memory_footprint()
    assert planned.true_bytes == bytes_in_memory(model)


@pytest.mark.parametrize(
    ("storage", "gigabytes"),
    [("float32", 12.9), ("int8", 3.6), ("nf4 double", 2.2)],
)
def test_llama_3b_as_published(storage: str, gigabytes: float) -> None:
    skeleton = catalog_skeleton("meta-llama/Llama-3.2-3B")
    assert skeleton
    assert round(measure_base(skeleton, STORAGES[storage]).footprint_bytes / 1e9, 1) == gigabytes


def test_what_is_called_4_bit_and_is_not() -> None:
    mixtral = catalog_skeleton("mistralai/Mixtral-8x7B-Instruct-v0.1")
    falcon = catalog_skeleton("tiiuae/falcon-7b")
    llama = catalog_skeleton("meta-llama/Llama-2-7b-hf")
    assert mixtral
    assert falcon
    assert llama
    experts = measure_base(mixtral, STORAGES["nf4 double"])
    assert experts.not_quantised == ("model.layers.*.mlp.experts",)
    assert round(experts.true_bytes / 1e9) == 91
    assert {name.rpartition(".")[2] for name in measure_base(falcon, STORAGES["nf4"]).not_quantised} == {
        "query_key_value",
        "dense",
        "dense_h_to_4h",
        "dense_4h_to_h",
    }
    assert measure_base(llama, STORAGES["nf4"]).not_quantised == ()


def test_double_quantisation_saves_037_bit_a_parameter() -> None:
    llama = catalog_skeleton("meta-llama/Llama-2-7b-hf")
    assert llama
    single, double = (measure_base(llama, STORAGES[name]) for name in ("nf4", "nf4 double"))
    quantised_parameters = single.quantised_bytes * 2
    assert (single.true_bytes - double.true_bytes) * 8 / quantised_parameters == pytest.approx(0.373, abs=0.001)
