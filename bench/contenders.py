"""What people would train with instead, each a plain script of its own: started by bench/train.py in a fresh process.

    python -m bench.contenders plain|trl|trl_padding_free|unsloth MODEL RECORDS.jsonl RECIPE.yaml OUT.json

RECORDS holds ``input_ids`` and ``labels``, the very tokens that the workbench feeds; OUT gets seconds and losses.
"""

import json
import sys
import time

STARTED = time.perf_counter()

from pathlib import Path  # noqa: E402  (the clock starts before anything is imported)
from typing import Any  # noqa: E402


def plain(model: Any, tokenizer: Any, records: Any, recipe: Any, marks: "Marks") -> Any:
    """The notebooks' way: transformers' Trainer, PEFT's preparation for k-bit training, padded batches, full logits."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model = prepare_model_for_kbit_training(
        model, use_gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **_lora(recipe)))
    return Trainer(
        model=model,
        args=TrainingArguments(**_arguments(recipe), gradient_checkpointing=True, bf16=_is_bfloat16(recipe)),
        train_dataset=records,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[marks.callback()],
    )


def trl(model: Any, tokenizer: Any, records: Any, recipe: Any, marks: "Marks", **more: Any) -> Any:
    """TRL with its defaults, and ``more`` of its arguments."""
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=model,
        args=SFTConfig(
            **{**_arguments(recipe), "max_length": recipe["data"]["max_length"], "bf16": _is_bfloat16(recipe), **more}
        ),
        train_dataset=records,
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **_lora(recipe)),
        callbacks=[marks.callback()],
    )


def trl_padding_free(model: Any, tokenizer: Any, records: Any, recipe: Any, marks: "Marks") -> Any:
    """TRL with its defaults and ``padding_free``; it wants FlashAttention, which it gets where that is installed."""
    # The records are no longer than they may be, and TRL would not shorten them here.
    return trl(model, tokenizer, records, recipe, marks, padding_free=True, max_length=None)


def unsloth(model: Any, tokenizer: Any, records: Any, recipe: Any, marks: "Marks") -> Any:
    """Unsloth as its notebooks have it; its own loader has made the model."""
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel

    lora = _lora(recipe)
    targets = lora.pop("target_modules")
    model = FastLanguageModel.get_peft_model(
        model,
        **lora,
        target_modules=_ALL_LINEAR if targets == "all-linear" else targets,
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=recipe["training"]["seed"],
    )
    return SFTTrainer(
        model=model,
        args=SFTConfig(**_arguments(recipe), max_length=recipe["data"]["max_length"], bf16=True),
        train_dataset=records,
        processing_class=tokenizer,
        callbacks=[marks.callback()],
    )


_ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


_MADE_BY = {"plain": plain, "trl": trl, "trl_padding_free": trl_padding_free, "unsloth": unsloth}


class Marks:
    """Seconds since the process began, at the end of each phase and each step; the losses beside them.

    ``places`` counts what was computed with padding, ``tokens`` without.
    """

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.steps: list[float] = []
        self.losses: list[float] = []
        self.places = self.tokens = 0

    def phase(self, name: str) -> None:
        self.phases[name] = time.perf_counter() - STARTED

    def callback(self) -> Any:
        from transformers import TrainerCallback

        marks = self

        class Marked(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                marks.phase("prepared")

            def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
                if "loss" in logs:
                    marks.steps.append(time.perf_counter() - STARTED)
                    marks.losses.append(float(logs["loss"]))

        return Marked()

    def counted(self, collate: Any) -> Any:
        """A collator whose batches are counted."""

        def collated(records: list[Any]) -> Any:
            batch = collate(records)
            self.places += batch["input_ids"].numel()
            self.tokens += sum(len(record["input_ids"]) for record in records)
            return batch

        return collated


def _is_bfloat16(recipe: Any) -> bool:
    return bool(recipe["quantization"]["compute_dtype"] == "bfloat16")


def _lora(recipe: Any) -> dict[str, Any]:
    adapter = recipe["adapter"]
    return {name: adapter[name] for name in ("r", "lora_alpha", "lora_dropout", "target_modules")}


def _arguments(recipe: Any) -> dict[str, Any]:
    import torch

    training = recipe["training"]
    same = (
        "max_steps",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "lr_scheduler_type",
        "seed",
        "optim",
    )
    return {
        **{name: training[name] for name in same},
        "warmup_steps": training["warmup_ratio"],
        "data_seed": training["seed"],
        "output_dir": recipe["output"]["dir"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def _has_flash() -> bool:
    from importlib.util import find_spec

    return find_spec("flash_attn") is not None


def _loaded(name: str, folder: str, recipe: Any) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    if name == "unsloth":
        from unsloth import FastLanguageModel

        return FastLanguageModel.from_pretrained(  # type: ignore[no-any-return]
            folder, max_seq_length=recipe["data"]["max_length"], load_in_4bit=True, dtype=torch.bfloat16
        )
    dtype = getattr(torch, recipe["quantization"]["compute_dtype"])
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        device_map={"": 0} if torch.cuda.is_available() else None,
        **({"attn_implementation": "flash_attention_2"} if name == "trl_padding_free" and _has_flash() else {}),
    )
    return model, AutoTokenizer.from_pretrained(folder)


def main() -> None:
    name, model_folder, records_file, recipe_file, out = sys.argv[1:]
    marks = Marks()
    if name == "unsloth":
        # It patches the libraries that are imported after it.
        import unsloth as _  # noqa: F401
    import torch
    import yaml
    from datasets import load_dataset
    from transformers import set_seed

    recipe = yaml.safe_load(Path(recipe_file).read_text(encoding="utf-8"))
    marks.phase("imported")
    records = load_dataset("json", data_files=records_file, split="train")
    marks.phase("tokenised")
    model, tokenizer = _loaded(name, model_folder, recipe)
    marks.phase("loaded")
    # As the workbench draws the first values of A.
    set_seed(recipe["training"]["seed"])
    trainer = _MADE_BY[name](model, tokenizer, records, recipe, marks)
    trainer.data_collator = marks.counted(trainer.data_collator)
    trainer.train()
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_rss()
    told = {name: getattr(marks, name) for name in ("phases", "steps", "losses")}
    padding = 1 - marks.tokens / max(marks.places, 1)
    Path(out).write_text(json.dumps({**told, "peak_bytes": peak, "padding": padding}))


def _peak_rss() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
