"""Translates a recipe into the configuration objects of bitsandbytes and TRL; PEFT's are in the adapter registry."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.engine.model.precision import Precision
from workbench.engine.model.sharded import is_sharded
from workbench.models.stored_quantization import StoredQuantization
from workbench.recipe.optimizers import name_there
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.recipe.trackers import PROJECT

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel
    from trl import SFTConfig


def loading_arguments(
    quantization: QuantizationSection, precision: Precision, stored: StoredQuantization | None
) -> dict[str, object]:
    """The arguments of ``from_pretrained`` that quantize a base, or load one that its files quantize.

    Args:
        stored: how the files quantize it; None if they do not.
    """
    if stored is None:
        return {"quantization_config": quantization_config(quantization, precision)}
    if not stored.is_dequantized:
        # Left out: given, even as None, it would contend with what config.json says.
        return {}
    import transformers

    return {"quantization_config": getattr(transformers, stored.dequantizer)(dequantize=True)}


def set_compute_dtype(model: "PreTrainedModel", dtype: "torch.dtype") -> None:
    """Let bitsandbytes layers that were read from files compute in ``dtype`` and not in the one of their files."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype, module.compute_type_is_set = dtype, True


def quantization_config(quantization: QuantizationSection, precision: Precision) -> "BitsAndBytesConfig | None":
    """``transformers.BitsAndBytesConfig`` for the quantization section, or None for a base in 16 or 32 bits."""
    if quantization.method == "none":
        return None
    import torch
    from transformers import BitsAndBytesConfig

    if quantization.method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.method,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=getattr(torch, precision.compute),
        # FSDP cannot shard integers, so the bytes are stored in tensors of the dtype of the other weights.
        bnb_4bit_quant_storage=getattr(torch, precision.compute if is_sharded() else "uint8"),
    )


def sft_config(recipe: ResolvedRecipe, precision: Precision, output: Path) -> "SFTConfig":
    """``trl.SFTConfig`` for records that are already tokenized and labeled.

    No autocast under bfloat16: base and adapter already have that dtype. float16 needs autocast and its loss scaler.
    """
    import torch
    from trl import SFTConfig

    training, on_gpu = recipe.training, torch.cuda.is_available()
    config = SFTConfig(
        output_dir=str(output),
        num_train_epochs=training.num_train_epochs,
        max_steps=training.max_steps,
        per_device_train_batch_size=training.per_device_train_batch_size,
        per_device_eval_batch_size=training.per_device_train_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler_type,
        lr_scheduler_kwargs=dict(training.lr_scheduler_kwargs),
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=name_there(training.optim),
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        neftune_noise_alpha=training.neftune_noise_alpha or None,
        # TRL would add the router's balancing loss by default, to the loss curve too; the trainer adds it.
        router_aux_loss_coef=0.0,
        gradient_checkpointing=bool(training.gradient_checkpointing),
        # With int8, non-reentrant checkpointing keeps alive the activations that it should free.
        gradient_checkpointing_kwargs={"use_reentrant": recipe.quantization.method == "int8"},
        logging_steps=training.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="steps" if training.save_steps else "no",
        save_steps=training.save_steps or 500,
        save_total_limit=training.save_total_limit,
        # Responses are compared with their neighbors, as in TRL's KTOTrainer.
        train_sampling_strategy="sequential" if recipe.objective.spec.records == "unpaired" else "random",
        seed=training.seed,
        data_seed=training.order_seed,
        bf16=False,
        fp16=precision.compute == "float16",
        use_cpu=not on_gpu,
        max_length=recipe.data.max_length,
        packing=recipe.data.packing,
        # The next batch is copied to the GPU while this one is computed.
        dataloader_pin_memory=on_gpu,
        accelerator_config={"non_blocking": on_gpu},
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        report_to=list(training.report_to),
        run_name=output.parent.name,
        project=os.environ.get("TRACKIO_PROJECT") or PROJECT,
        # Otherwise trackio sends the metrics to the hub whenever something is pushed there.
        trackio_static_space_id=False,
        push_to_hub=False,
    )
    # Otherwise a single process would use all GPUs of a machine, and multiply the batch by their number.
    if config.n_gpu > 1:
        config._n_gpu = 1
    return config
