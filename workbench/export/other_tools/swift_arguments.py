"""ms-swift's arguments: which of them a recipe has too, their defaults, and those that a recipe does not have."""

from workbench.export.other_tools.keys import OF_TRANSFORMERS

SAME = {
    "model_revision": "model.revision",
    "max_length": "data.max_length",
    "num_train_epochs": "training.num_train_epochs",
    **OF_TRANSFORMERS,
    "per_device_train_batch_size": "training.per_device_train_batch_size",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "lorap_lr_ratio": "training.loraplus_lr_ratio",
    "router_aux_loss_coef": "training.router_aux_loss",
    "early_stop_interval": "training.early_stopping_patience",
    "data_seed": "training.data_seed",
    "save_only_model": "training.save_only_model",
    "eval_on_start": "training.eval_on_start",
}
# The same of each kind of adapter, and its options by PEFT's names.
SAME_OF = {
    "lora": {
        "lora_rank": "adapter.r",
        "lora_alpha": "adapter.lora_alpha",
        "lora_dropout": "adapter.lora_dropout",
        "lora_bias": "adapter.bias",
        "use_rslora": "adapter.use_rslora",
        "use_dora": "adapter.use_dora",
    },
    "vera": {"vera_rank": "adapter.r"},
    "boft": {},
    "fourierft": {},
}
OPTIONS_OF: dict[str, dict[str, tuple[str, object]]] = {
    "vera": {
        "vera_d_initial": ("d_initial", 0.1),
        "vera_dropout": ("vera_dropout", 0.0),
        "vera_projection_prng_key": ("projection_prng_key", 0),
    },
    "boft": {"boft_block_size": ("boft_block_size", 4), "boft_dropout": ("boft_dropout", 0.0)},
    "fourierft": {"fourier_n_frequency": ("n_frequency", 2000), "fourier_scaling": ("scaling", 300.0)},
}
DEFAULTS_OF: dict[str, dict[str, object]] = {
    "lora": {"adapter.r": 8, "adapter.lora_alpha": 32, "adapter.lora_dropout": 0.05},
    "vera": {"adapter.r": 256},
}
DEFAULTS: dict[str, object] = {
    "data.packing": False,
    "training.num_train_epochs": 3.0,
    "training.learning_rate": 1e-4,
    "training.lr_scheduler_type": "cosine",
    "training.warmup_ratio": 0.0,
    "training.weight_decay": 0.1,
    "training.adam_beta2": 0.95,
    "training.max_grad_norm": 1.0,
    "training.gradient_checkpointing": True,
    "training.optim": "adamw_torch_fused",
    "training.seed": 42,
    "training.data_seed": 42,
}
# Without gradient_accumulation_steps, a step has so many records on all GPUs together.
RECORDS_PER_STEP = 16
# Without max_length, records are cut at the length of the model, which the file does not say.
LENGTH = 8192
# Settings that train something else than an adapter on these records.
OTHER_TRAINING = ("use_galore", "lisa_activated_layers", "enable_dft_loss", "mrl_dims", "freeze_llm")
STARTS = ("gaussian", "pissa", "pissa_niter_4", "pissa_niter_16", "olora")
# Settings that change what is trained, and that a recipe does not have.
LACKING = {
    "ld_alpha": "all tokens of a response count the same",
    "target_parameters": "experts that are stored as one weight get no adapter",
    "new_special_tokens": "the tokenizer's own are used",
    "external_plugins": "no code of the file is run",
    "custom_register_path": "no code of the file is run",
    "rope_scaling": "the model's own is used",
    "agent_template": "the model's own template writes tools",
    "response_prefix": "the model's own template is used",
    "vit_lr": "parts that read images are frozen",
    "aligner_lr": "parts that read images are frozen",
}
# Settings that are on in a recipe.
ON = {
    "freeze_vit": "parts that read images are frozen",
    "freeze_aligner": "parts that read images are frozen",
    "train_dataloader_shuffle": "records are in random order",
}
# Arguments without an effect on a recipe.
IGNORED = (
    # speed and memory
    "attn_impl", "padding_free", "padding_side", "deepspeed", "deepspeed_autotp_size", "zero_hpz_partition_size",
    "fsdp", "fsdp_config", "sequence_parallel_size", "device_map", "max_memory", "tuner_backend", "experts_impl",
    "gradient_checkpointing_kwargs", "vit_gradient_checkpointing", "use_logits_to_keep", "max_pixels", "model_kwargs",
    "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage", "hqq_axis", "lora_dtype", "use_flash_ckpt",
    "ds3_gather_for_generation", "ddp_find_unused_parameters", "ddp_timeout", "ddp_backend", "use_cpu", "tf32",
    "per_device_eval_batch_size", "enable_npu_model_patch",
    # reading records
    "load_from_cache_file", "dataset_num_proc", "lazy_tokenize", "streaming", "shuffle_buffer_size", "download_mode",
    "dataset_shuffle", "val_dataset_shuffle", "remove_unused_columns", "strict",
    "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_drop_last",
    "dataloader_pin_memory", "packing_num_proc", "packing_strategy", "cached_val_dataset", "custom_dataset_info",
    "disable_auto_column_mapping", "data_cache",
    # logging and files
    "output_dir", "add_version", "create_checkpoint_symlink", "logging_dir", "run_name", "logging_first_step",
    "logging_strategy", "log_level", "save_safetensors", "safe_serialization", "max_shard_size",
    "overwrite_output_dir", "push_to_hub", "hub_model_id", "hub_token", "check_model", "acc_strategy",
    "enable_channel_loss", "metric", "eval_metric", "eval_use_evalscope", "eval_dataset", "eval_dataset_args",
    "eval_limit", "eval_generation_config", "extra_eval_args", "swanlab_project", "swanlab_workspace",
    "swanlab_exp_name", "swanlab_mode", "swanlab_token", "swanlab_notification_method", "label_names",
    "include_num_input_tokens_seen", "do_eval", "resume_from_checkpoint", "resume_only_model", "load_args",
    "load_data_args", "ignore_args_error", "swift_version", "evaluation_strategy", "prediction_loss_only",
    # the model's kind and template, which are found in its files here
    "model_type", "local_repo_path", "template_backend", "norm_bbox", "init_strategy", "use_swift_lora",
    # launching and generation
    "use_ray", "ray_exp_name", "device_groups", "predict_with_generate", "max_new_tokens", "temperature", "top_p",
    "top_k", "num_beams", "stream", "stop_words", "repetition_penalty", "max_completion_length", "sortish_sampler",
    "generation_max_length", "generation_num_beams",
)  # fmt: skip
