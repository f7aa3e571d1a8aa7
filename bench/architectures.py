"""Our first two training steps against those of plain transformers and PEFT, for every causal architecture there is.

Each is a tiny random model in float32. Plain: a loop that computes each record alone, unpadded, from the model's own
logits. Ours: the engine's trainer, in the way that its check of the loss takes. A line each goes to
docs/measurements/architectures.json, and what is there is not measured again; ``--table`` writes the table of
docs/architectures.md from it.

    python -m bench.architectures [TYPE…] [--table]
"""

import argparse
import copy
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.random_model import word_tokenizer
from bench.tiny_configs import tiny_config
from workbench.models.language_part import exclusion_pattern, frozen_parts
from workbench.models.model_class import check_continues_text

MEASUREMENTS = Path("docs/measurements/architectures.json")
PAGE = Path("docs/architectures.md")
STEPS, SEED, LEARNING_RATE = 2, 42, 0.05
# Longer than the tiny models' windows (32), shorter, and much shorter.
LENGTHS = (21, 5, 47, 13)
# In the mapping of causal models, and yet nothing that a person tunes as a text decoder today.
NO_DECODERS = {
    "bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "camembert",
    "cpmant", "data2vec-text", "electra", "ernie", "git", "got_ocr2", "marian", "mbart", "megatron-bert", "moshi",
    "moss_transcribe_diarize", "musicgen", "musicgen_melody", "mvp", "pegasus", "plbart", "prophetnet", "reformer",
    "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "trocr", "whisper", "xlm", "xlm-roberta",
    "xlm-roberta-xl", "xlnet", "xmod",
}  # fmt: skip

# Where PEFT does not accept all linear layers.
_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
TARGETS = {
    "mamba": ["in_proj", "x_proj", "dt_proj"],
    "falcon_mamba": ["in_proj", "x_proj", "dt_proj"],
    "mamba2": ["in_proj"],
    "falcon_h1": [*_ATTENTION, "in_proj", "gate_proj", "up_proj", "down_proj"],
    "nemotron_h": [*_ATTENTION, "in_proj", "up_proj", "down_proj"],
    **dict.fromkeys(("llama4", "llama4_text", "phimoe", "gemma3n", "gemma3n_text"), _ATTENTION),
}


@dataclass
class Steps:
    """Losses in nats per token and norms of the adapter's gradient, by step."""

    losses: list[float]
    gradients: list[float]


@dataclass
class Row:
    """One architecture.

    Attributes:
        path: how the engine computes its loss; ``problem``: why not in the fastest way.
        error: what prevented a comparison; ``plain_error`` if plain transformers and PEFT cannot do it either.
    """

    model_type: str
    path: str = ""
    problem: str = ""
    detail: str = ""
    plain: Steps | None = None
    ours: Steps | None = None
    plain_error: str = ""
    error: str = ""
    seconds: float = 0.0

    @property
    def differences(self) -> tuple[float, float]:
        """The largest relative difference of a loss, and of a gradient's norm."""
        assert self.plain is not None
        assert self.ours is not None
        return (
            max(abs(a - b) / abs(b) for a, b in zip(self.ours.losses, self.plain.losses, strict=True)),
            max(abs(a - b) / abs(b) for a, b in zip(self.ours.gradients, self.plain.gradients, strict=True)),
        )


def model_types() -> list[str]:
    """All causal decoders that the installed transformers has, and after them all models that read images too."""
    from transformers.models.auto import modeling_auto as auto

    causal = [name for name in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in NO_DECODERS]
    return [*causal, *(name for name in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if name not in causal)]


def tiny_model(model_type: str) -> Any:
    """A random model in float32, whose weights are wide enough for attention to matter."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = tiny_config(model_type)
    config.architectures = None
    is_causal = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not is_causal:
        check_continues_text({"model_type": model_type})
    torch.manual_seed(0)
    loader = AutoModelForCausalLM if is_causal else AutoModelForImageTextToText
    model = loader.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if not bool(parameter.isfinite().all()):
                parameter.normal_(0, 0.02)
            if parameter.dim() >= 2 and 0.005 < float(parameter.std()) < 0.05:
                parameter.mul_(8)
    return model.requires_grad_(False).eval()


def records() -> list[dict[str, list[int]]]:
    """Records with trained parts at both ends and in the middle."""
    made = []
    for start, length in enumerate(LENGTHS, 3):
        ids = [3 + (start * 31 + 7 * place * place) % 250 for place in range(length)]
        labels = [
            token if place < 3 or place % 7 > 2 or place > length - 3 else -100 for place, token in enumerate(ids)
        ]
        made.append({"input_ids": ids, "labels": labels})
    return made


def adapter(model_type: str) -> dict[str, Any]:
    """The adapter of both sides."""
    return {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": TARGETS.get(model_type, "all-linear")}


def plain_steps(model: Any, model_type: str) -> Steps:
    """As anybody would write it: PEFT, SGD at a constant rate, clipped gradients, each record by itself."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(SEED)
    # Parts that text does not reach would only take random numbers from the others.
    excluded = exclusion_pattern(frozen_parts(model)) or None
    settings = adapter(model_type)
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", exclude_modules=excluded, **settings))
    peft.train()
    weights = [parameter for parameter in peft.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=LEARNING_RATE)
    rows = records()
    trained = sum(label != -100 for row in rows for label in row["labels"][1:])
    steps = Steps([], [])
    for _ in range(STEPS):
        total = 0.0
        for row in rows:
            logits = peft(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0, :-1].float()
            targets = torch.tensor(row["labels"])[1:]
            loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum") / trained
            loss.backward()
            total += loss.item()
        steps.losses.append(total)
        steps.gradients.append(float(torch.nn.utils.clip_grad_norm_(weights, 1.0)))
        optimizer.step()
        optimizer.zero_grad()
    return steps


def our_steps(model: Any, row: Row) -> Steps:
    """The engine's trainer, on the path that the engine chooses."""
    import torch
    from datasets import Dataset

    from workbench.data.templates.template import Template
    from workbench.engine.metrics.step_clock import GpuPeak, HostTimer, StepClock
    from workbench.engine.model.base import LoadedBase
    from workbench.engine.model.loss_check.check import check_loss
    from workbench.engine.model.precision import Precision
    from workbench.engine.model.translate import sft_config
    from workbench.engine.steering.ranks import ALONE
    from workbench.engine.storage.disk_full_retry import SilentJournal
    from workbench.engine.training.run_warnings import RunWarnings
    from workbench.engine.training.trainers.trainer import WorkbenchTrainer
    from workbench.errors import WorkbenchError
    from workbench.models.sources import LocalModel
    from workbench.recipe.resolved import resolved
    from workbench.recipe.schema import Recipe
    from workbench.recipe.text import edit

    settings = {
        **{f"adapter.{name}": value for name, value in adapter(row.model_type).items()},
        "quantization.method": "none", "quantization.compute_dtype": "float32", "training.max_steps": STEPS,
        "training.per_device_train_batch_size": len(LENGTHS), "training.gradient_accumulation_steps": 1,
        "training.learning_rate": LEARNING_RATE, "training.lr_scheduler_type": "constant", "training.warmup_ratio": 0.0,
        "training.optim": "sgd", "training.gradient_checkpointing": False, "training.save_steps": 0,
        "training.seed": SEED,
    }  # fmt: skip
    recipe = resolved(edit(Recipe(), settings))
    precision = Precision("float32", "float32", "for the comparison")
    tokenizer = word_tokenizer([])
    local = LocalModel(Path(), "tiny", None, "folder")
    base = LoadedBase(recipe.model, recipe.quantization, precision, local, model, tokenizer, 0, recipe.quantization)
    torch.manual_seed(SEED)
    peft = base.attach_new(recipe.adapter)
    rows = records()
    with tempfile.TemporaryDirectory() as folder:
        trainer = WorkbenchTrainer(
            model=peft,
            args=sft_config(recipe, precision, Path(folder)),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            clock=StepClock(None, GpuPeak(None, ""), HostTimer()),
            ranks=ALONE,
            template=Template.for_model(tokenizer, "auto", None),
            retry_while_full=lambda work: work(),
            skip_non_finite=False,
            warnings=RunWarnings(SilentJournal()),
            out_of_memory_error=lambda: WorkbenchError("out of memory", "none"),
        )
        base.cast_adapter()
        found = check_loss(base, rows)
        row.path, row.problem, row.detail = str(found.path), found.problem, found.detail
        base.enable_loss_path(found.path)
        trainer.take(found.path)
        trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Steps([entry["loss"] for entry in log], [float(entry["grad_norm"]) for entry in log])


def compare(model_type: str) -> Row:
    """Both sides for one architecture."""
    row, started = Row(model_type), time.perf_counter()
    try:
        model = tiny_model(model_type)
        row.plain = plain_steps(copy.deepcopy(model), model_type)
    except Exception as error:
        row.plain_error = _in_one_line(error)
        return row
    try:
        row.ours = our_steps(model, row)
    except Exception as error:
        traceback.print_exc()
        row.error = _in_one_line(error)
    row.seconds = round(time.perf_counter() - started, 2)
    return row


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def write_table(measured: dict[str, Any]) -> None:
    """Replace the table of the page, which follows a comment."""
    import transformers

    lines = [
        f"transformers {transformers.__version__}: {len(measured)} of {len(model_types())} architectures measured.",
        "",
        "| architecture | batches | loss, relative difference | gradient, relative difference | notes |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for name, fields in sorted(measured.items()):
        row = Row(**fields | {side: Steps(**fields[side]) if fields[side] else None for side in ("plain", "ours")})
        if row.plain is None:
            reason = row.plain_error.replace("|", "/")
            lines.append(f"| {name} | plain transformers and PEFT cannot train the tiny model | | | {reason} |")
        elif row.ours is None:
            lines.append(f"| {name} | refused | | | {row.error} |")
        else:
            loss, gradient = row.differences
            reason = row.problem.partition(": loss ")[0]
            lines.append(f"| {name} | {row.path} | {loss:.0e} | {gradient:.0e} | {reason} |")
    before, mark, _ = PAGE.read_text(encoding="utf-8").partition("<!-- table -->\n")
    PAGE.write_text(before + mark + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, and write the table."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    measured = json.loads(MEASUREMENTS.read_text()) if MEASUREMENTS.is_file() else {}
    for model_type in given.types or ([] if given.table else model_types()):
        if not given.types and model_type in measured:
            continue
        row = compare(model_type)
        measured[model_type] = asdict(row)
        if row.plain and row.ours:
            result = "loss {:.1e} gradient {:.1e}".format(*row.differences)
        else:
            result = row.plain_error or row.error
        print(
            f"{model_type:26s} {row.seconds:6.2f} s {row.path:14s} {result} | {row.problem}",
            file=sys.stderr,
            flush=True,
        )
        if not given.types:
            MEASUREMENTS.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
    if given.table:
        write_table(measured)


if __name__ == "__main__":
    main()
