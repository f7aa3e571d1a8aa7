"""What torch.compile costs and gains a run: ``python -m bench.compile [--model M] [--home DIR] [--json FILE]``.

Three short runs of the same recipe, each in a fresh process: not compiled; compiled where nothing was compiled before;
and once more, with PyTorch's compiled code on disk. Seconds a token are those of all steps but the first;
losses of the compiled runs are compared with those of the first run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.circumstances import circumstances
from tests.journals import read_events
from workbench.engine.training.training import Training
from workbench.models.cache_listing import clear
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import DEFAULT_MODEL
from workbench.recipe.text import edit
from workbench.runs.folder import create_run
from workbench.storage.paths import Home

COMPILE = "training.torch_compile"
TURNS = {"usual": False, "cold": True, "warm": True}


def one_run(home: Home, recipe: Recipe) -> dict[str, Any]:
    """Train in this process; losses by step, seconds a token, and seconds that compiling took."""
    run = create_run(home, recipe)
    training = Training(home, run, recipe)
    training.run()
    if training.error is not None:
        raise SystemExit(str(training.error))
    events = read_events(run.journal)
    warned = [event["message"] for event in events if event.get("kind") == "torch_compile"]
    if warned:
        raise SystemExit(warned[0])
    steps = [event for event in events if event["event"] == "step"]
    return {
        "losses": [event["loss"] for event in steps],
        "seconds_a_token": sum(event["seconds"] for event in steps[1:]) / (steps[-1]["tokens"] - steps[0]["tokens"]),
        "compiling": next((event["compile_seconds"] for event in events if "compile_seconds" in event), 0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--dtype", default="auto", help="compute type, as in quantization.compute_dtype")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=TURNS, help="one run in this process; its figures go to --json")
    options = parser.parse_args()
    home = Home.find(options.home)
    with tempfile.TemporaryDirectory() as folder:
        if options.only:
            changes = {
                "model.source": options.model,
                "quantization.compute_dtype": options.dtype,
                "training.max_steps": options.steps,
                "training.gradient_accumulation_steps": 1,
                "training.gradient_checkpointing": False,
                "training.save_steps": 0,
                "data.eval_fraction": 0.0,
                "output.dir": folder,
                COMPILE: TURNS[options.only],
            }
            options.json.write_text(json.dumps(one_run(home, edit(Recipe(), changes))), encoding="utf-8")
            return
        told = circumstances()
        found: dict[str, Any] = {}
        for turn in TURNS:
            if turn == "cold":
                clear(home, ["compiled"])
            file = Path(folder) / f"{turn}.json"
            command = [sys.executable, "-m", "bench.compile", "--only", turn, "--json", str(file)]
            command += ["--model", options.model, "--steps", str(options.steps), "--dtype", options.dtype]
            command += ["--home", str(options.home)] if options.home else []
            subprocess.run(command, check=True)
            found[turn] = json.loads(file.read_text(encoding="utf-8"))
    usual = found.pop("usual")
    result = {**told, "model": options.model, "dtype": options.dtype, "steps": options.steps}
    for turn, figures in found.items():
        pairs = zip(figures["losses"], usual["losses"], strict=True)
        result[turn] = {
            "usual": usual["seconds_a_token"],
            "compiled": figures["seconds_a_token"],
            "compiling": figures["compiling"],
            "loss_differs_by": max(abs(ours - theirs) / theirs for ours, theirs in pairs),
        }
        print(turn, json.dumps(result[turn], indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
