"""Our training against what people would run instead: the same model, tokens, settings and seed, in one run.

Contenders: ``plain`` (transformers' Trainer, PEFT's k-bit preparation, padded batches, full logits, as in most
notebooks), ``trl`` (TRL with its defaults), ``trl_padding_free`` (with ``padding_free``, too), ``engine`` (ours with
our defaults, nobody watching), ``watched`` (the same, with the app on its Train screen in a pseudo-terminal),
``unsloth`` where it is installed. They take turns, each in fresh processes; medians are printed, and ratios turn by
turn, so that a machine whose speed wanders matters less.

    python -m bench.train [--records 48] [--repeats 3] [--pairs 9] [--set path=value]…
                          [--model FOLDER | --random ID] [--json FILE]

``--pairs`` gives ``engine`` and ``watched`` more turns than the others: what the app costs is about a hundredth, and
two turns of the same differ by more. Its processor time while steps ran is told too.

Without ``--model`` it is SmolLM2-135M-Instruct, fetched once into the home; ``--random`` takes a model of the catalog
with random weights. Speed is that of one pass over all records: trained tokens, and all tokens without padding, by the
seconds between the trainer's begin and its last step. The scripts are given tokens, the engine tokenises text. In its
first turn the engine quantises and tokenises; later it finds both on disk, as a user's second run does.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import yaml

from bench.circumstances import circumstances, error_of_median
from bench.random_model import words_of_first_mate, write_random_model
from bench.terminal import Terminal
from tests.journals import read_events
from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import ensure_engine, stop_engine
from workbench.engine.client.requests import train_request
from workbench.machine.gpu import first_gpu
from workbench.machine.hardware import computes_bfloat16
from workbench.recipe.presets import load_preset
from workbench.recipe.resolved import resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse_assignment
from workbench.runs.folder import RunFolder, find_run, summarise
from workbench.storage.paths import Home

CONTENDERS = ("plain", "trl", "trl_padding_free", "engine", "watched", "unsloth")
SCRIPTS = ("plain", "trl", "trl_padding_free", "unsloth")
COMPARED = (
    ("engine", "trl"),
    ("engine", "trl_padding_free"),
    ("watched", "engine"),
    ("engine", "plain"),
    ("engine", "unsloth"),
)


def write_records(path: Path, count: int, words: list[str], draw: random.Random) -> None:
    """Questions and answers of a realistic spread: log-normal, a median of some 60 words, a few of 400."""
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            asked = min(int(draw.lognormvariate(2.7, 0.6)) + 3, 200)
            answered = min(int(draw.lognormvariate(3.9, 0.9)) + 5, 360)
            record = {"question": _text(words, asked, draw), "answer": _text(words, answered, draw)}
            file.write(json.dumps(record) + "\n")


def _text(words: list[str], count: int, draw: random.Random) -> str:
    return " ".join(draw.choice(words) for _ in range(count))


def write_tokens(home: Home, recipe: Recipe, path: Path) -> dict[str, int]:
    """The very tokens and labels that the workbench feeds, for those who do not tokenise as it does."""
    from transformers import AutoTokenizer

    from workbench.data.sources import load_records
    from workbench.data.templates.template import Template
    from workbench.data.tokens.encode import encode_dataset
    from workbench.models.sources import fetch_model

    local = fetch_model(home, recipe.model, lambda progress: None, lambda: False)
    tokenizer = AutoTokenizer.from_pretrained(local.folder)
    data = encode_dataset(load_records(recipe.data, home), Template.for_model(tokenizer, "auto", None), recipe.data)
    with path.open("w", encoding="utf-8") as file:
        for record in data.train:
            file.write(json.dumps({"input_ids": record["input_ids"], "labels": record["labels"]}) + "\n")
    tokens = [len(record["input_ids"]) for record in data.train]
    trained = sum(label != -100 for record in data.train for label in record["labels"][1:])
    return {"records": len(tokens), "tokens": sum(tokens), "trained": trained, "longest": max(tokens)}


def run_script(name: str, model: Path, tokens: Path, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """One contender that is a script: its seconds by phase and step, losses and peak."""
    settings, out = folder / "recipe.yaml", folder / f"{name}.json"
    # What is left to follow others in a recipe is written out.
    settings.write_text(yaml.safe_dump(edit(recipe, {"output.dir": str(folder / name)}).model_dump()))
    command = [sys.executable, "-m", "bench.contenders", name, str(model), str(tokens), str(settings), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    told = json.loads(out.read_text())
    phases = told["phases"]
    return {
        "to_first_step": told["steps"][0],
        "import": phases["imported"],
        "tokenise": phases["tokenised"] - phases["imported"],
        "load": phases["loaded"] - phases["tokenised"],
        "training": told["steps"][-1] - phases["prepared"],
        "losses": told["losses"],
        "peak_bytes": told["peak_bytes"],
        "padding": told["padding"],
    }


async def run_engine(home: Home, recipe: Recipe, *, watched: bool) -> dict[str, Any]:
    """Ours, from the start of a fresh engine."""
    from time import time

    started = time()
    watching = 0.0
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        run = find_run(home, (await client.train(train_request(recipe))).run)
        if watched:
            watching = await asyncio.to_thread(watch, home, run)
        while summarise(run).state in ("new", "running"):
            await asyncio.sleep(0.2)
        status = await client.status()
        peak = _peak_of(status.pid)
    finally:
        await client.close()
        await stop_engine(home)
    return {**_of_journal(run, started, peak), "watching": watching}


def watch(home: Home, run: RunFolder) -> float:
    """Have the app on its Train screen until the run ends.

    Returns:
        Seconds of processor time that the app took from the first step that it was there for to the last.
    """
    with Terminal([sys.executable, "-m", "workbench.cli", "--home", str(home.root)]) as terminal:
        app = psutil.Process(terminal.pid)
        terminal.read(4)
        terminal.send("5")
        before = None
        while (summary := summarise(run)).state in ("new", "running"):
            if before is None and summary.step:
                before = app.cpu_times()
            terminal.read(0.5)
        after = app.cpu_times()
    return after.user + after.system - (before.user + before.system if before else 0.0)


def _peak_of(pid: int) -> int:
    """Bytes of memory that a process held at most."""
    (line,) = [row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _of_journal(run: RunFolder, started: float, peak: int) -> dict[str, Any]:
    events = read_events(run.journal)
    if events[-1].get("reason") != "finished":
        raise RuntimeError(f"{run.id}: {summarise(run).reason}\n{run.log.read_text()[-2000:]}")
    steps = [event for event in events if event["event"] == "step"]
    begin: dict[str, float] = {}
    for event in events:
        if event["event"] == "phase":
            begin.setdefault(event["phase"], event["time"])
    gpu = max(step["vram"]["peak"] for step in steps)
    return {
        "to_first_step": steps[0]["time"] - started,
        "import": begin["loading"] - started,
        "load": begin["tokenizing"] - begin["loading"],
        "tokenise": begin["preparing"] - begin["tokenizing"],
        "training": steps[-1]["time"] - begin["training"],
        "losses": [step["loss"] for step in steps],
        "peak_bytes": gpu or peak,
        "padding": statistics.fmean(step.get("padding") or 0.0 for step in steps),
    }


def compute_dtype() -> str:
    """What the device multiplies in hardware: a processor without bfloat16 units takes twenty times as long in it."""
    return "bfloat16" if computes_bfloat16(first_gpu()) else "float32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=0, help="turns of our engine without and with the app, if more")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--random", metavar="ID", help="a model of the catalog, its weights random")
    parser.add_argument("--home", type=Path, help="a home that already holds the model; nothing is written there")
    parser.add_argument("--only", action="append", choices=CONTENDERS)
    parser.add_argument("--set", action="append", default=[], metavar="path=value")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = _home_with_models_of(options.home, folder / "home")
        words = words_of_first_mate()
        records = folder / "records.jsonl"
        write_records(records, options.records, words, random.Random(7))
        if options.random:
            options.model = str(write_random_model(options.random, folder / "model", words))
        batch = 4
        recipe = edit(
            load_preset("demo", home),
            {
                "model.source": options.model,
                "quantization.compute_dtype": compute_dtype(),
                "training.gradient_checkpointing": "auto",
                "data.source": str(records),
                "data.eval_fraction": 0.0,
                "data.max_length": 512,
                "adapter.lora_dropout": 0.0,
                "training.max_steps": -1,
                "training.num_train_epochs": 1,
                "training.per_device_train_batch_size": batch,
                "training.gradient_accumulation_steps": 1,
                "training.logging_steps": 1,
                "training.eval_steps": 0,
                "training.save_steps": 0,
            }
            | dict(parse_assignment(text) for text in options.set),
        )
        tokens = folder / "tokens.jsonl"
        counts = write_tokens(home, recipe, tokens)
        scripts = edit(resolved(recipe), {"training.max_steps": -(-counts["records"] // batch)})
        from workbench.models.sources import fetch_model

        model = fetch_model(home, recipe.model, lambda progress: None, lambda: False).folder
        names = options.only or [name for name in CONTENDERS if name != "unsloth" or find_spec("unsloth")]
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for turn in range(max(options.repeats, options.pairs)):
            # Who comes first changes, for a machine may slow down as it works.
            for contender in names if turn % 2 == 0 else reversed(names):
                if turn >= options.repeats and contender in SCRIPTS:
                    continue
                if contender in SCRIPTS:
                    told = run_script(contender, model, tokens, scripts, folder)
                else:
                    told = asyncio.run(run_engine(home, recipe, watched=contender == "watched"))
                results[contender].append(told)
                print(f"turn {turn + 1}  {contender:8s} {told['training']:7.1f} s", flush=True)
        about = {
            "model": options.random or options.model,
            "micro_batch": batch,
            "compute_dtype": recipe.quantization.compute_dtype,
        }
        report(results, {**about, **counts}, options.json)


def _difference(ours: list[float], theirs: list[float]) -> float:
    """The largest of two curves' relative differences, step by step."""
    return max(abs(one - other) / other for one, other in zip(ours, theirs, strict=True))


def _home_with_models_of(other: Path | None, root: Path) -> Home:
    """A home for the runs alone; its models are those of another one, where one was named."""
    root.mkdir()
    for shared in ("models", "cache"):
        if other is not None and (other / shared).is_dir():
            (root / shared).symlink_to((other / shared).absolute(), target_is_directory=True)
    return Home(root.absolute())


def report(results: dict[str, list[dict[str, Any]]], counts: dict[str, Any], out: Path | None) -> None:
    """The table on the terminal, everything in a file."""
    medians: dict[str, dict[str, float]] = {
        name: {key: statistics.median(told[key] for told in runs) for key in runs[0] if key != "losses"}
        for name, runs in results.items()
    }
    print(f"\n{counts['records']} records, {counts['tokens']} tokens, {counts['trained']} of them trained")
    print(
        f"{'':9s}{'trained tok/s':>14s}{'tok/s':>8s}{'first step':>12s}{'import':>8s}{'load':>7s}"
        f"{'tokens':>8s}{'peak':>9s}{'padding':>13s}"
    )
    for name, told in medians.items():
        print(
            f"{name:9s}{counts['trained'] / told['training']:14.1f}{counts['tokens'] / told['training']:8.1f}"
            f"{told['to_first_step']:10.1f} s{told['import']:6.1f} s{told['load']:5.1f} s{told['tokenise']:6.1f} s"
            f"{told['peak_bytes'] / 2**30:6.2f} GiB{told['padding']:9.1%}"
        )
    ratios = _ratios(results, medians)
    for pair, ratio in ratios.items():
        error = f" ± {ratio['speed_error']:.3f}" if ratio["speed_error"] is not None else ""
        print(
            f"{pair}: {ratio['speed']:.3f}{error} of its speed in {ratio['turns']} turns, "
            f"{ratio['memory']:.3f} of its memory, losses within {ratio['loss_differs_by']:.2%}"
        )
    if "watched" in medians:
        share = medians["watched"]["watching"] / medians["watched"]["training"]
        print(f"the app took {medians['watched']['watching']:.2f} s of processor time, {share:.2%} of one core")
    if out:
        everything = {**circumstances(), **counts, "medians": medians, "ratios": ratios, "runs": results}
        out.write_text(json.dumps(everything, indent=1) + "\n")


def _ratios(
    results: dict[str, list[dict[str, Any]]], medians: dict[str, dict[str, float]]
) -> dict[str, dict[str, Any]]:
    """What ours has of the others' speed, turn by turn, and of their memory."""
    ratios = {}
    for ours, theirs in COMPARED:
        if ours in medians and theirs in medians:
            # The pair of ours may have had more turns than the scripts.
            both = zip(results[ours], results[theirs], strict=False)
            turns = [their["training"] / our["training"] for our, their in both]
            ratios[f"{ours}/{theirs}"] = {
                "speed": statistics.median(turns),
                "speed_error": error_of_median(turns) if len(turns) > 1 else None,
                "turns": len(turns),
                "memory": medians[ours]["peak_bytes"] / medians[theirs]["peak_bytes"],
                "loss_differs_by": _difference(results[ours][0]["losses"], results[theirs][0]["losses"]),
            }
    return ratios


if __name__ == "__main__":
    main()
