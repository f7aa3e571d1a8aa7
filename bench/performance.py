"""Writes the tables of docs/performance.md from the figures under docs/measurements: no number is typed by hand.

    python -m bench.performance

Reads those of ``train*.json`` (bench.train), ``compile*.json`` (bench.compile), ``chat*.json`` (bench.chat),
``growth.json`` (bench/growth.py), ``estimate.json`` (bench/estimate.py) and ``first-frame.json``
(bench/first_frame.py) that are there.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
MEASURED = DOCS / "measurements"

# What stands between these in the page is written anew.
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"

# What each contender is, in the order of the tables.
CONTENDERS = {
    "plain": "plain script: `Trainer`, PEFT, padded, full logits",
    "trl": "TRL with its defaults",
    "trl_padding_free": "TRL with its defaults and `padding_free`",
    "engine": "our engine, nobody watching",
    "watched": "our engine, the app watching in a terminal",
    "unsloth": "Unsloth",
}


def measured(pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each file of figures that fits."""
    for file in sorted(MEASURED.glob(pattern)):
        yield file.name, json.loads(file.read_text(encoding="utf-8"))


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; the first column to the left, figures to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "\n"


def where(name: str, told: dict[str, Any]) -> str:
    """The line under a table: when, on what, with what."""
    hardware, versions = told["hardware"], told["versions"]
    gpus = ", ".join(gpu["name"] for gpu in hardware["gpus"])
    machine = gpus or f"{hardware['cpu_cores']} processor cores, {hardware['ram_bytes'] / 2**30:.0f} GiB, no GPU"
    ahead = ", ahead of other programs" if told.get("ahead_of_other_programs") else ""
    with_what = ", ".join(f"{name} {version}" for name, version in versions.items())
    load = "" if told.get("load") is None else f"; load {told['load']}"
    return f"[`{name}`](measurements/{name}): {told['date']}, {machine}{ahead}{load}. {with_what}.\n\n"


def _in(told: dict[str, Any]) -> str:
    return f", computed in {told['compute_dtype']}" if "compute_dtype" in told else ""


def training() -> Iterator[str]:
    """A section for each run of the training bench."""
    for name, told in measured("train*.json"):
        medians, first = told["medians"], {who: runs[0] for who, runs in told["runs"].items()}
        model = Path(told["model"]).name
        yield f"## Training {model}, micro-batches of {told['micro_batch']}{_in(told)}\n\n"
        yield (
            f"One pass over {told['records']:,} records of {told['tokens'] // told['records']:,} tokens in the mean, "
            f"the longest of {told['longest']:,}; {told['trained']:,} of {told['tokens']:,} tokens are trained. "
            f"Medians of {_turns(told['runs'])}, each in a fresh process. The scripts are "
            "given tokens, the engine text; its base and tokens lie on disk, quantised and tokenised, after its first "
            "turn.\n\n"
        )
        rows = [
            [
                words,
                f"{told['trained'] / medians[who]['training']:,.1f}",
                f"{told['tokens'] / medians[who]['training']:,.1f}",
                f"{medians[who]['padding']:.1%}",
                f"{medians[who]['peak_bytes'] / 2**30:.2f} GiB",
                f"{first[who]['to_first_step']:.1f} s",
                f"{medians[who]['to_first_step']:.1f} s",
                *(f"{medians[who][part]:.1f}" for part in ("import", "load", "tokenise")),
            ]
            for who, words in CONTENDERS.items()
            if who in medians
        ]
        head = ["", "trained tokens/s", "tokens/s", "padding", "peak memory", "first step, first turn", "later"]
        yield table([*head, "import", "load", "tokenise"], rows)
        yield table(
            ["", "speed", "standard error", "turns", "peak memory", "largest difference of a step's loss"],
            [
                [
                    pair.replace("/", " / "),
                    f"{r['speed']:.3f}",
                    f"{r['speed_error']:.3f}" if r["speed_error"] is not None else "",
                    f"{r['turns']}",
                    f"{r['memory']:.3f}",
                    f"{r['loss_differs_by']:.3%}",
                ]
                for pair, r in told["ratios"].items()
            ],
        )
        if watched := medians.get("watched"):
            yield (
                "The speed is the median of what it was turn by turn. While steps ran, the watching app took "
                f"{watched['watching']:.2f} s of processor time in {watched['training']:.1f} s, "
                f"{watched['watching'] / watched['training']:.1%} of a core.\n\n"
            )
        yield where(name, told)


def _turns(runs: dict[str, list[Any]]) -> str:
    """``3 turns, 9 of engine and watched``: how often each took its turn."""
    counts = {who: len(turns) for who, turns in runs.items()}
    fewest = min(counts.values())
    more = [who for who, count in counts.items() if count > fewest]
    return f"{fewest} turns" + (f", {counts[more[0]]} of {' and '.join(more)}" if more else "")


def compiling() -> Iterator[str]:
    """What compiled layers cost and gain."""
    for name, told in measured("compile*.json"):
        yield f"## torch.compile, {Path(told['model']).name}\n\n"
        rows = [
            [
                words,
                f"{told[turn]['compiling']:.0f} s",
                f"{told[turn]['usual'] * 1e3:.2f} ms",
                f"{told[turn]['compiled'] * 1e3:.2f} ms",
                f"{told[turn]['compiled'] / told[turn]['usual']:.3f}",
                f"{told[turn]['loss_differs_by']:.5%}",
            ]
            for turn, words in (("cold", "nothing compiled before"), ("warm", "compiled code on disk"))
        ]
        head = [
            "",
            "compiling",
            "per token, uncompiled",
            "compiled",
            "ratio",
            f"largest difference of {told['steps']} losses",
        ]
        yield table(head, rows)
        yield where(name, told)


def chat() -> Iterator[str]:
    """Tokens a second of replies."""
    for name, told in measured("chat*.json"):
        yield "## Chat\n\n"
        yield (
            f"{Path(told['model']).name}, greedy replies of {told['tokens']} tokens, plain `model.generate` and ours "
            "in turns on the same weights; “streamed” is read meanwhile by another process over the socket.\n\n"
        )
        rows = [
            [
                weights,
                f"{r['plain']:.2f}",
                f"{r['ours']:.2f}",
                f"{r['share']:.3f}",
                f"{r['streamed_share']:.3f}" if "streamed_share" in r else "",
                f"{r['share_error']:.3f}" if "share_error" in r else "",
            ]
            for weights, r in told["figures"].items()
            if "share" in r
        ]
        yield table(["", "`generate`, tokens/s", "ours, tokens/s", "share", "streamed", "standard error"], rows)
        switch = told["figures"].get("switching")
        if switch:
            yield (
                f"Another adapter on the same base: {switch['switch_ms']:.1f} ms in the median, "
                f"{switch['slowest_switch_ms']:.1f} ms at most. Three adapters add "
                f"{switch['added_bytes'] / 1e6:.0f} MB to a base of {switch['base_bytes'] / 1e6:.0f} MB; their files "
                f"have {switch['adapters_bytes'] / 1e6:.0f} MB.\n\n"
            )
        yield where(name, told)


def growth() -> Iterator[str]:
    """Much of everything: the tables as the bench has them."""
    for name, told in measured("growth*.json"):
        yield "## Much of it\n\n"
        for title, rows in told.items():
            if isinstance(rows, list) and rows and isinstance(rows[0], dict):
                head = list(dict.fromkeys(key for row in rows for key in row))
                yield f"{title}:\n\n"
                yield table(
                    [words(column) for column in head], [[_cell(row.get(column)) for column in head] for row in rows]
                )
        yield where(name, told)


def words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


_RANKS = ("median", "p99", "worst")


def screen() -> Iterator[str]:
    """What a key and a start cost."""
    for name, told in measured("estimate.json"):
        yield "## A key on the Adapter screen\n\n"
        rows = [
            [f"{model}, key {rhythm}", *(f"{figures['painted'][f'{which}_ms']:.1f}" for which in _RANKS)]
            for model, rhythms in told["models"].items()
            for rhythm, figures in rhythms.items()
        ]
        rows += [
            [f"a piece of Python that is always the same, after {model}, key {rhythm}"]
            + [f"{figures['always_the_same'][f'{which}_ms']:.1f}" for which in _RANKS]
            for model, rhythms in told["models"].items()
            for rhythm, figures in rhythms.items()
            if "always_the_same" in figures
        ]
        yield table(["milliseconds from key to painted figures", "median", "99th percentile", "worst"], rows)
        yield where(name, told)
    for name, told in measured("first-frame.json"):
        yield "## The first frame\n\n"
        yield table(
            ["", "seconds"],
            [
                ["a bare Textual app", f"{told['bare_seconds']:.3f}"],
                ["loraworkbench", f"{told['ours_seconds']:.3f}"],
                ["ratio", f"{told['ratio']:.2f}"],
            ],
        )
        yield where(name, told)


def main() -> None:
    page = DOCS / "performance.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    figures = "".join((*training(), *compiling(), *chat(), *screen(), *growth()))
    page.write_text(f"{before}{BEGIN}\n{figures}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
