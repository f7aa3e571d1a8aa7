"""FLOPs by arithmetic against those that PyTorch counts while a real tiny model makes a step on the CPU."""

from functools import cache
from typing import Any

import pytest

from tests.estimate.architectures import TINY
from workbench.adapters.settings import AdapterSettings
from workbench.estimate.flops import Work, training_flops
from workbench.estimate.gpu_peak import GpuPeak, gpu_peak
from workbench.models.build import build_skeleton
from workbench.models.catalog import catalog_skeleton
from workbench.models.skeleton import Skeleton

RECORDS, LENGTH = 3, 24
ATTENTION = {
    "llama": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
    "phi": ("q_proj", "v_proj"),
    "bloom": ("query_key_value",),
    "falcon": ("query_key_value",),
    "mixtral": ("q_proj", "v_proj"),
    "qwen2_moe": ("q_proj", "v_proj"),
    "gpt_oss": ("q_proj", "v_proj"),
    "deepseek_v3": ("q_b_proj", "kv_b_proj"),
}


@cache
def skeleton_of(name: str) -> Skeleton:
    return build_skeleton(TINY[name])


def counted(name: str, settings: AdapterSettings, *, lowest: int = 0, checkpointing: bool = False) -> int:
    """FLOPs of forward and backward of a real model, by PyTorch's own counter.

    Args:
        lowest: the lowest layer with an adapter. Its input is made to need a gradient, which as a rule it does not;
            -1 leaves it so.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    config = CONFIG_MAPPING[TINY[name]["model_type"]].from_dict(dict(TINY[name]))
    # The fused kernels of attention compute their scores again in the backward, which the counter counts.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    model.config.use_cache = False
    if hasattr(model.config, "_experts_implementation"):
        # One product an expert, which the counter knows; not one for all of them.
        model.set_experts_implementation("eager")
    names = settings.target_modules
    peft = get_peft_model(
        model,
        LoraConfig(
            r=settings.r,
            target_modules=names if isinstance(names, str) else list(names),
            layers_to_transform=settings.layers_to_transform and list(settings.layers_to_transform),
            modules_to_save=list(settings.modules_to_save) or None,
        ),
    )
    stack = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    if lowest >= 0:
        stack[lowest].register_forward_pre_hook(_need_gradient)
    if checkpointing:
        peft.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    peft.train()
    ids = torch.randint(0, 320, (RECORDS, LENGTH))
    with FlopCounterMode(display=False) as counter:
        peft(input_ids=ids).logits.float().logsumexp(-1).sum().backward()
    return counter.get_total_flops()


def _need_gradient(_: Any, inputs: tuple[Any, ...]) -> None:
    inputs[0].requires_grad_()


def reckoned(name: str, settings: AdapterSettings, checkpointing: bool = False) -> int:
    flops = training_flops(skeleton_of(name), settings, checkpointing)
    return flops.hardware([LENGTH] * RECORDS, RECORDS * LENGTH)


@pytest.mark.parametrize("name", ATTENTION)
def test_adapters_on_the_attention_of_many_architectures(name: str) -> None:
    settings = AdapterSettings(r=4, target_modules=ATTENTION[name])
    assert reckoned(name, settings) == counted(name, settings)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen3", "gemma2", "phi3", "gpt_neox", "mpt"])
def test_adapters_on_every_linear_layer(name: str) -> None:
    settings = AdapterSettings(r=8, target_modules="all-linear")
    assert reckoned(name, settings) == counted(name, settings)


def test_layers_below_the_lowest_adapter_need_no_backward() -> None:
    upper = AdapterSettings(r=4, target_modules=("q_proj", "v_proj"), layers_to_transform=(2,))
    assert reckoned("llama", upper) == counted("llama", upper, lowest=2)
    everywhere = AdapterSettings(r=4, target_modules=("q_proj", "v_proj"))
    assert reckoned("llama", upper) < 0.7 * reckoned("llama", everywhere)


def test_a_module_that_is_trained_whole() -> None:
    settings = AdapterSettings(r=4, target_modules=("q_proj",), modules_to_save=("lm_head",))
    assert reckoned("llama", settings) == counted("llama", settings)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_checkpointing_computes_the_layers_again(name: str) -> None:
    settings = AdapterSettings(r=4, target_modules=("q_proj", "v_proj"))
    # PyTorch stops at the last result that the backward asks for, which spares it the last product of each layer.
    spared = RECORDS * LENGTH * 3 * 2 * 96 * 64
    assert reckoned(name, settings, checkpointing=True) - counted(name, settings, checkpointing=True) == spared
    assert reckoned(name, settings) == counted(name, settings)


def test_a_gradient_that_is_not_asked_for_is_all_the_difference() -> None:
    """The input of the lowest adapted layer needs none, and that is all that PyTorch spares itself."""
    settings = AdapterSettings(r=4, target_modules=("q_proj", "v_proj"))
    difference = reckoned("llama", settings) - counted("llama", settings, lowest=-1)
    inward = 64 * (64 + 2 * 32) + 2 * 4 * 64  # q, k and v; A of q and of v
    # Nor does k, which nothing trained leads to: its share of the scores' gradient.
    assert difference == RECORDS * LENGTH * 2 * inward + RECORDS * 2 * LENGTH**2 * 64


def test_the_formula_of_the_paper() -> None:
    """PaLM, appendix B: attention takes 12·layers·heads·head width·length a token, beside the weights."""
    skeleton = catalog_skeleton("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert skeleton is not None
    adapter = AdapterSettings(r=16, target_modules="all-linear")
    flops = training_flops(skeleton, adapter, checkpointing=True)
    layers, hidden, inner, keys, vocabulary, length = 30, 576, 1536, 192, 49152, 1000
    weights = layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner)
    added = layers * 16 * (2 * 2 * hidden + 2 * (hidden + keys) + 3 * (hidden + inner))
    attention = 12 * layers * hidden * length
    assert flops.model([length], 0) == length * (4 * weights + 6 * added + attention)
    assert flops.model([length], 7) - flops.model([length], 0) == 7 * 4 * hidden * vocabulary
    assert flops.again.of([length]) == length * (2 * weights + 2 * added + attention // 3)


def test_records_of_a_row_do_not_see_each_other() -> None:
    flops = training_flops(skeleton_of("llama"), AdapterSettings(r=4, target_modules=("q_proj",)), checkpointing=False)
    assert flops.model([10, 20], 0) == flops.model([10], 0) + flops.model([20], 0) < flops.model([30], 0)


@pytest.mark.parametrize(("name", "with_window"), [("gemma3", 3), ("mistral", 0), ("gpt_oss", 2), ("gemma2", 2)])
def test_windows_bound_what_a_token_looks_at(name: str, with_window: int) -> None:
    changed = {"sliding_window": 32, "num_hidden_layers": 3} if name == "gemma2" else {}
    if name == "gpt_oss":
        changed = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    skeleton = build_skeleton({**TINY[name], **changed})
    flops = training_flops(skeleton, AdapterSettings(r=4, target_modules=("q_proj",)), checkpointing=False)
    width = 2 * 64
    seen = {32: 6 * width * with_window, 0: 6 * width * (3 - with_window)}
    assert dict(flops.needed.per_pair) == {window: pairs for window, pairs in seen.items() if pairs}
    assert Work(0, ((32, 1), (0, 1))).of([10, 50]) == 2 * 10 * 10 + 50 * 32 + 50 * 50


def test_a_model_without_attention_has_no_pairs() -> None:
    settings = AdapterSettings(r=4, target_modules=("in_proj", "x_proj"))
    flops = training_flops(skeleton_of("mamba"), settings, checkpointing=False)
    assert flops.needed.per_pair == ()
    assert flops.model([8, 8], 4) == flops.model([16], 4) > 0


def test_experts_that_are_adapted_count_as_they_are_used() -> None:
    on_experts = AdapterSettings(r=4, target_modules=("q_proj",), target_parameters=("mlp.experts.down_proj",))
    on_attention = AdapterSettings(r=4, target_modules=("q_proj",))
    more, less = (
        training_flops(skeleton_of("qwen3_moe"), settings, checkpointing=False).model([1], 0)
        for settings in (on_experts, on_attention)
    )
    assert more - less == 3 * 2 * 6 * 4 * (32 + 64)  # layers, experts a token


@pytest.mark.parametrize(
    ("name", "compute", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA A100-SXM4-80GB", "float16", 312),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA RTX 6000 Ada Generation", "bfloat16", 364.2),
        ("Tesla T4", "float16", 65),
        ("Tesla V100-SXM2-16GB", "float16", 125),
    ],
)
def test_the_peak_of_a_gpu_goes_by_its_name(name: str, compute: str, tflops: float) -> None:
    assert gpu_peak(name, compute) == GpuPeak(tflops * 1e12)


@pytest.mark.parametrize(
    ("name", "compute"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16"),
        ("NVIDIA GeForce RTX 4090 D", "bfloat16"),
        ("NVIDIA GeForce RTX 3080 Ti", "bfloat16"),
        ("Tesla T4", "bfloat16"),
        ("NVIDIA H200", "float32"),
        ("Something else", "bfloat16"),
    ],
)
def test_a_peak_that_is_not_known_says_why(name: str, compute: str) -> None:
    found = gpu_peak(name, compute)
    assert found.flops is None
    assert name in found.why
