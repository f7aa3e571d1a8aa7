"""Serving, measured on one model: ``python -m bench.serve [--model M] [--home DIR] [--json FILE]``.

A server with a base and two adapters answers eight requests one after another and all at once, greedy and without an
end, so that the same tokens are made. What is told is how many times as many tokens a second the batch makes, as a
ratio in one run, in turns.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from bench.chat import loaded, make_adapters
from bench.circumstances import circumstances, error_of_median
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Sampling
from workbench.engine.model.adapters import ActiveAdapters
from workbench.recipe.sections.model import DEFAULT_MODEL
from workbench.serving.batching import Batches
from workbench.serving.draw import Draw
from workbench.storage.paths import Home

QUESTIONS = [
    f"Explain to a child why {what}." for what in ("the sky is blue", "ships float", "bread rises", "it rains")
]


async def _reply(batches: Batches, adapters: ActiveAdapters, prompt: list[int], tokens: int) -> int:
    draw = Draw(Sampling(temperature=0), prompt)
    return sum([len(new) async for new in batches.generate(adapters, draw, tokens, [-1])])


async def measure(
    batches: Batches, asked: list[tuple[ActiveAdapters, list[int]]], tokens: int, turns: int
) -> list[float]:
    """By turn: tokens a second of all requests at once over those of one after another."""
    await asyncio.gather(*(_reply(batches, adapters, prompt, 4) for adapters, prompt in asked))
    ratios = []
    for _ in range(turns):
        started = time.perf_counter()
        for adapters, prompt in asked:
            await _reply(batches, adapters, prompt, tokens)
        alone = time.perf_counter() - started
        started = time.perf_counter()
        await asyncio.gather(*(_reply(batches, adapters, prompt, tokens) for adapters, prompt in asked))
        ratios.append(alone / (time.perf_counter() - started))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--method", default="nf4", choices=["nf4", "int8", "none"])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    base = loaded(Home.find(given.home), given.model, given.method)
    base.packing.allow()
    template = Template.for_model(base.tokenizer)
    prompts = [template.encode_prompt([{"role": "user", "content": question}]) for question in QUESTIONS]
    figures: dict[str, object] = {"circumstances": circumstances(), "model": given.model, "method": given.method}
    with tempfile.TemporaryDirectory() as folder:
        pirate, cook, _ = (ActiveAdapters(((path, 1.0),)) for path in make_adapters(base, Path(folder)))
        mixes = {
            "one adapter": [(pirate, prompt) for prompt in prompts * 2],
            "two adapters": [(adapters, prompt) for adapters in (pirate, cook) for prompt in prompts],
        }
        for name, asked in mixes.items():
            batches = Batches(base, 8192)
            ratios = asyncio.run(measure(batches, asked, given.tokens, given.turns))
            batches.close()
            figures[name] = {"ratio": statistics.median(ratios), "error": error_of_median(ratios), "turns": ratios}
            print(
                f"eight at once, {name}: {statistics.median(ratios):.2f} ± {error_of_median(ratios):.2f} of one by one"
            )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
