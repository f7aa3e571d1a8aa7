"""Builds the quantized base with its adapter on the meta device, as the engine does with data. Imports torch."""

from collections.abc import Iterator

import torch
from torch import nn

from workbench.adapters.registry import method_of, peft_config
from workbench.adapters.settings import AdapterSettings
from workbench.estimate.adapter.new_rows import token_rows
from workbench.estimate.footprint import BLOCK, NESTED_BLOCK, Storage
from workbench.estimate.step import Step
from workbench.estimate.trace.kernels import ATTENTION, FLASH_ATTENTION, register_attention
from workbench.models.build import meta_model, unquantized_modules
from workbench.models.language_part import exclusion_pattern
from workbench.models.skeleton import Skeleton
from workbench.recipe.schema import Recipe


def training_model(skeleton: Skeleton, recipe: Recipe, step: Step, rank: int) -> nn.Module:
    """A PEFT model on the meta device, in training mode, with ``rank`` instead of the recipe's r."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    model = meta_model(skeleton.config)
    register_attention()
    if step.attention in ("eager", "flash_attention_2"):
        model.set_attn_implementation("eager" if step.attention == "eager" else FLASH_ATTENTION)
    elif model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)
    model.config.use_cache = False
    model = model.to(getattr(torch, step.loaded.dtype))
    if step.loaded.method != "none":
        model = _quantise(model, step, unquantized_modules(model, skeleton.config))
    if step.variant == "plain" and step.loaded.method != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    adapter, method = recipe.trained_adapter, method_of(recipe.adapter.method)
    config = peft_config(
        adapter,
        token_rows(skeleton, AdapterSettings.of(adapter)),
        exclusion_pattern(part.name for part in skeleton.frozen_parts),
        **method.for_trace(rank),
    )
    peft = get_peft_model(model, config, low_cpu_mem_usage=True)
    if step.reads_texts:
        # One output; the weights of the others are counted with the adapter.
        hidden = skeleton.root.facts.get("hidden_size")
        peft.get_base_model().score = nn.Linear(int(hidden or 0), 1, bias=False, device="meta")
    for name, parameter in peft.named_parameters():
        if recipe.training.trains_b_only and "lora_A" in name:
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(getattr(torch, step.dtypes.adapter))
        elif parameter.requires_grad:
            dtype = "float32" if method.is_float32(name) else step.dtypes.adapter
            parameter.data = parameter.data.to(getattr(torch, dtype))
    if step.checkpointing != "none":
        reentrant = step.checkpointing == "reentrant"
        peft.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        peft.enable_input_require_grads()
    return peft.train()


def resting_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Every tensor on the device before the step."""
    for parameter in model.parameters():
        yield parameter
        state = getattr(parameter, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            for name in ("absmax", "code", "offset"):
                tensor = getattr(part, name, None)
                if tensor is not None:
                    yield tensor
        for name in ("SCB", "CB"):
            tensor = getattr(parameter, name, None)
            if isinstance(tensor, torch.Tensor):
                yield tensor
    yield from model.buffers()


def _quantise(model: nn.Module, step: Step, skipped: list[str]) -> nn.Module:
    """Replace linear layers by bitsandbytes layers with empty weights of the right size.

    bitsandbytes quantizes when a layer is moved to a device, which never happens on meta, so the state is set directly.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    storage = step.loaded
    if storage.method == "int8":
        # Without the search for outliers, whose number depends on the data; they are a few columns.
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=storage.method,
            bnb_4bit_use_double_quant=storage.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, step.compute),
        )
    biases = {name: module.bias for name, module in model.named_modules() if hasattr(module, "bias")}
    model = replace_with_bnb_linear(model, modules_to_not_convert=skipped, quantization_config=config)
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            module.weight = _weight_of_4_bits(module, storage, getattr(torch, step.compute))
            module.quant_state = module.weight.quant_state
        elif isinstance(module, Linear8bitLt):
            module._parameters["weight"] = _weight_of_8_bits(module)
        else:
            continue
        if biases.get(name) is not None:
            module.bias = biases[name]
    flag = "is_loaded_in_8bit" if storage.method == "int8" else "is_loaded_in_4bit"
    setattr(model, flag, True)
    model.quantization_method = "bitsandbytes"
    return model


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _weight_of_4_bits(module: nn.Module, storage: Storage, compute: torch.dtype) -> nn.Parameter:
    from bitsandbytes.functional import QuantState

    shape = torch.Size((module.out_features, module.in_features))
    blocks = -(-shape.numel() // BLOCK)
    options: dict[str, object] = {"shape": shape, "blocksize": BLOCK, "quant_type": storage.method, "dtype": compute}
    code = _empty((16,), torch.float32)
    if storage.double_quant:
        nested = QuantState(
            absmax=_empty((-(-blocks // NESTED_BLOCK),), torch.float32),
            code=_empty((256,), torch.float32),
            blocksize=NESTED_BLOCK,
            dtype=torch.float32,
        )
        offset = _empty((), torch.float32)
        state = QuantState(absmax=_empty((blocks,), torch.uint8), code=code, offset=offset, state2=nested, **options)
    else:
        state = QuantState(absmax=_empty((blocks,), torch.float32), code=code, **options)
    weight = nn.Parameter(_empty(((shape.numel() + 1) // 2, 1), torch.uint8), requires_grad=False)
    for name, value in {
        "quant_state": state,
        "compress_statistics": storage.double_quant,
        "quant_type": storage.method,
        "bnb_quantized": True,
    }.items():
        setattr(weight, name, value)
    return weight


def _weight_of_8_bits(module: nn.Module) -> nn.Parameter:
    weight = nn.Parameter(_empty((module.out_features, module.in_features), torch.int8), requires_grad=False)
    weight.CB = weight.data
    weight.SCB = _empty((module.out_features,), torch.float32)
    weight.has_fp16_weights = False
    return weight
