"""A JSONL file of a million rows: opened, sampled and shown; then its full statistics. Seconds and peak memory.

Libraries are imported and the tokenizer is loaded before the clock starts. Memory is the process's peak resident set.
Processor seconds are those of all its threads; on a busy machine they say more than the clock.

    python -m bench.million_rows [--rows 1000000] [--tokenizer FOLDER] [--full] [--json FILE]
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = (
    *("the", "sea", "is", "blue", "and", "kind", "because", "two", "add", "to", "five"),
    *("why", "do", "ships", "float", "on", "cold", "grey", "water", "at", "night"),
)


def write_rows(path: Path, rows: int) -> None:
    """Instruction records of 30 to 60 words, all different."""
    rng = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            question = " ".join(rng.choices(WORDS, k=rng.randint(10, 20)))
            answer = " ".join(rng.choices(WORDS, k=rng.randint(20, 40)))
            file.write(json.dumps({"instruction": f"{number}: {question}", "response": answer}) + "\n")


def small_tokenizer() -> Any:
    """Byte-level BPE trained on the words, with ChatML turns."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 10, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


def peak_megabytes() -> float:
    """Peak resident set of this process in MB (10⁶ bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(path: Path, tokenizer_folder: str | None, full: bool) -> dict[str, Any]:
    """Runs in a process of its own, so that the peak is that of reading alone."""
    from transformers import AutoTokenizer

    from screens.data.records import read_first_records
    from workbench.data.sources import load_records
    from workbench.data.statistics import data_facts
    from workbench.data.templates.template import Template
    from workbench.recipe.sections.data import DataSection
    from workbench.storage.paths import Home

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder) if tokenizer_folder else small_tokenizer()
    data = DataSection(source=str(path))
    template = Template.for_model(tokenizer, "auto" if tokenizer.chat_template else "chatml")
    before = peak_megabytes()

    started = time.perf_counter()
    first_seen = next(read_first_records((data, "texts"), Home(Path("/nonexistent"))))
    seen_seconds = time.perf_counter() - started

    started = time.perf_counter()
    records = load_records(data)
    sample = data_facts(records, template, data, show=10, limit=512)
    figures: dict[str, Any] = {
        "megabytes_on_disk": round(path.stat().st_size / 1e6, 1),
        "peak_mb_of_libraries": round(before, 1),
        "seen_untokenised_seconds": round(seen_seconds, 3),
        "seen_untokenised_records": first_seen.count,
        "first_answer_seconds": round(time.perf_counter() - started, 3),
        "first_answer_records": sample.records,
        "first_answer_peak_mb": round(peak_megabytes(), 1),
        "processors": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 1),
    }
    if full:
        started, computed = time.perf_counter(), time.process_time()
        facts = data_facts(records, template, data, report=lambda progress: None)
        figures |= {
            "full_seconds": round(time.perf_counter() - started, 1),
            "full_cpu_seconds": round(time.process_time() - computed, 1),
            "full_records": facts.records,
            "full_tokens": facts.total,
            "full_peak_mb": round(peak_megabytes(), 1),
        }
    return figures


def figures_of(rows: int, tokenizer_folder: str | None = None, *, full: bool = False) -> dict[str, Any]:
    """Write so many rows, measure in a process of its own, and remove them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, rows)
        command = [sys.executable, __file__, "--measure", str(path)]
        command += ["--tokenizer", tokenizer_folder] if tokenizer_folder else []
        command += ["--full"] if full else []
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tokenizer", help="a folder with a tokenizer; else a small one made on the spot")
    parser.add_argument("--full", action="store_true", help="the full statistics too")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.tokenizer, options.full)))
        return
    figures = figures_of(options.rows, options.tokenizer, full=options.full)
    for name, value in figures.items():
        print(f"{name:24} {value:,}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
