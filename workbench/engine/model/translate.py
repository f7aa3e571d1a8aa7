"""The recipe in the words of the libraries: PEFT's, bitsandbytes' and TRL's configuration objects."""

import os
from pathlib import Path
from typing import Any

from workbench.engine.model.precision import Precision
from workbench.engine.model.sharded import is_sharded
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.schema import AdapterSection, QuantizationSection
from workbench.recipe.trackers import PROJECT


def lora_config(adapter: AdapterSection) -> Any:
    """``peft.LoraConfig`` of the adapter section, field for field."""
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", **adapter.model_dump())


def quantization_config(quantization: QuantizationSection, precision: Precision) -> Any:
    """``transformers.BitsAndBytesConfig``, or None for a base that stays in 16 or 32 bits."""
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
        # FSDP shards no integers: the bytes are then kept in tensors of the type of the other weights.
        bnb_4bit_quant_storage=getattr(torch, precision.compute if is_sharded() else "uint8"),
    )


def sft_config(recipe: ResolvedRecipe, precision: Precision, output: Path) -> Any:
    """``trl.SFTConfig`` for records that are already tokenised and labelled.

    No autocast under bfloat16: base and adapter are in it already. float16 needs autocast and its loss scaler.
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
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=training.optim,
        gradient_checkpointing=training.gradient_checkpointing,
        # With int8 the non-reentrant kind keeps activations alive that it was to free.
        gradient_checkpointing_kwargs={"use_reentrant": recipe.quantization.method == "int8"},
        logging_steps=training.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="steps" if training.save_steps else "no",
        save_steps=training.save_steps or 500,
        save_total_limit=training.save_total_limit,
        seed=training.seed,
        data_seed=training.seed,
        bf16=False,
        fp16=precision.compute == "float16",
        use_cpu=not on_gpu,
        max_length=recipe.data.max_length,
        packing=recipe.data.packing,
        # The next batch is on its way to the GPU while this one is computed.
        dataloader_pin_memory=on_gpu,
        accelerator_config={"non_blocking": on_gpu},
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        report_to=list(training.report_to),
        run_name=output.parent.name,
        project=os.environ.get("TRACKIO_PROJECT") or PROJECT,
        # Or trackio would send the figures to the hub whenever something is pushed there.
        trackio_static_space_id=False,
        push_to_hub=False,
    )
    # On a machine with several GPUs one process would else take them all at once, and multiply the batch by them.
    if config.n_gpu > 1:
        config._n_gpu = 1
    return config
