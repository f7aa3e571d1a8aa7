"""An evaluation without padding beside one with: ``python -m bench.held_out [--model M] [--home DIR] [--json FILE]``.

The same records of the demo, SmolLM2 in 4 bits with a random adapter on it, each turn in a fresh process: seconds of
the evaluation alone, the largest difference of a record's loss, and the process's peak memory.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.chat import loaded
from bench.circumstances import circumstances
from workbench.recipe.sections.adapter import AdapterSection
from workbench.recipe.sections.data import DataSection
from workbench.recipe.sections.model import DEFAULT_MODEL
from workbench.storage.paths import Home

KINDS = ("padded", "flat")


def one_turn(home: Home, model: str, records: int, batch: int, kind: str) -> dict[str, Any]:
    """Evaluate in this process."""
    from workbench.data.sources import load_records
    from workbench.data.templates.template import Template
    from workbench.data.tokens.encode import encode_dataset
    from workbench.engine.generation.evaluation import record_losses

    base = loaded(home, model, "nf4")
    base.attach_new(AdapterSection())
    section = DataSection()
    data = encode_dataset(load_records(section, home), Template.for_model(base.tokenizer, "auto", None), section)
    held_out = data.train.select(range(records))
    started = time.perf_counter()
    losses = record_losses(base, held_out, batch, lambda progress: None, lambda: False, padded=kind == "padded")
    seconds = time.perf_counter() - started
    assert losses is not None
    return {
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "losses": [one.loss for one in losses],
        "trained": sum(one.tokens for one in losses),
        "tokens": sum(len(record["input_ids"]) for record in held_out),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--records", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=KINDS, help="one turn in this process; its figures go to --json")
    options = parser.parse_args()
    if options.only:
        found = one_turn(Home.find(options.home), options.model, options.records, options.batch, options.only)
        options.json.write_text(json.dumps(found), encoding="utf-8")
        return
    turns: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    given = ["--model", options.model, "--records", str(options.records), "--batch", str(options.batch)]
    if options.home is not None:
        given += ["--home", str(options.home)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "turn.json"
        for _ in range(options.turns):
            for kind in KINDS:
                command = [sys.executable, "-m", "bench.held_out", *given, "--only", kind, "--json", str(out)]
                subprocess.run(command, check=True, capture_output=True)
                turns[kind].append(json.loads(out.read_text()))
                print(f"{kind:7} {turns[kind][-1]['seconds']:7.1f} s  {turns[kind][-1]['peak_bytes'] / 2**30:.2f} GiB")
    figures = {
        kind: {name: statistics.median(turn[name] for turn in turns[kind]) for name in ("seconds", "peak_bytes")}
        for kind in KINDS
    }
    padded, flat = (turns[kind][0] for kind in KINDS)
    differs = max(abs(a - b) / max(a, 1e-9) for a, b in zip(padded["losses"], flat["losses"], strict=True))
    ratios = {
        "speed": figures["padded"]["seconds"] / figures["flat"]["seconds"],
        "memory": figures["flat"]["peak_bytes"] / figures["padded"]["peak_bytes"],
        "loss_differs_by": differs,
    }
    told = {
        **circumstances(),
        "model": options.model,
        "batch": options.batch,
        "records": options.records,
        **{name: flat[name] for name in ("tokens", "trained")},
        "figures": figures,
        "ratios": ratios,
    }
    print(f"speed {ratios['speed']:.3f}  memory {ratios['memory']:.3f}  a record's loss differs by {differs:.2e}")
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
