"""What people would train with instead, each a plain script of its own: started by bench/train.py in a fresh process.

    python -m bench.contenders plain|trl MODEL RECORDS.jsonl RECIPE.yaml OUT.json

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
        args=TrainingArguments(**_arguments(recipe), gradient_checkpointing=True, bf16=True),
        train_dataset=records,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[marks.callback()],
    )


def trl(model: Any, tokenizer: Any, records: Any, recipe: Any, marks: "Marks") -> Any:
    """TRL with its defaults."""
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=model,
        args=SFTConfig(**_arguments(recipe), max_length=recipe["data"]["max_length"]),
        train_dataset=records,
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **_lora(recipe)),
        callbacks=[marks.callback()],
    )


class Marks:
    """Seconds since the process began, at the end of each phase and each step; the losses beside them."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.steps: list[float] = []
        self.losses: list[float] = []

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
        "data_seed": training["seed"],
        "output_dir": recipe["output"]["dir"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def main() -> None:
    name, model_folder, records_file, recipe_file, out = sys.argv[1:]
    marks = Marks()
    import torch
    import yaml
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed

    recipe = yaml.safe_load(Path(recipe_file).read_text(encoding="utf-8"))
    marks.phase("imported")
    records = load_dataset("json", data_files=records_file, split="train")
    marks.phase("tokenised")
    dtype = getattr(torch, recipe["quantization"]["compute_dtype"])
    model = AutoModelForCausalLM.from_pretrained(
        model_folder,
        dtype=dtype,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        device_map={"": 0} if torch.cuda.is_available() else None,
    )
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    marks.phase("loaded")
    set_seed(recipe["training"]["seed"])
    {"plain": plain, "trl": trl}[name](model, tokenizer, records, recipe, marks).train()
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_rss()
    Path(out).write_text(
        json.dumps({"phases": marks.phases, "steps": marks.steps, "losses": marks.losses, "peak_bytes": peak})
    )


def _peak_rss() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
