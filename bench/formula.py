"""The closed form against traced steps of the catalog: ``python -m bench.formula [--write] > table.md``.

Every shipped timeline is evaluated at five sizes and compared with the formula. With ``--write``, the largest
difference of each kind of model goes to ``presets/models/formula_errors.json``, where an estimate reads its own doubt.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from workbench.estimate import TraceStore, price
from workbench.estimate.doubt import FILE
from workbench.estimate.layer_shape import text_type
from workbench.estimate.step import plan_step
from workbench.estimate.trace.ship import setup_of, shipped_recipes
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.recipe.text import edit

SIZES = ((1, 512, 16), (4, 1024, 16), (2, 2048, 64), (8, 512, 8), (1, 8192, 16))
"""Micro-batch, tokens and rank."""


class Difference(NamedTuple):
    """``ratio`` is the formula's allocated memory divided by that of the traced step, minus 1."""

    model: str
    kind: str
    checkpoints: bool
    size: tuple[int, int, int]
    ratio: float


def differences() -> Iterator[Difference]:
    """Closed form and trace of every catalog model, in the recipes that have a shipped timeline."""
    store = TraceStore()
    for entry in {entry.tree: entry for entry in catalog()}.values():
        skeleton = catalog_skeleton(entry.id)
        assert skeleton
        for recipe in shipped_recipes(skeleton):
            setup = setup_of(skeleton, recipe)
            if store.find(skeleton, setup.adapter, plan_step(setup)) is None:
                continue
            for size in SIZES:
                batch, length, rank = size
                changes = {"training.per_device_train_batch_size": batch, "data.max_length": length, "adapter.r": rank}
                changed = edit(recipe, changes)
                traced = price(skeleton, changed).peak
                formula = price(skeleton, changed, traced=lambda *_: None).peak
                ratio = formula.allocated_bytes / traced.allocated_bytes - 1
                yield Difference(entry.id, text_type(skeleton), bool(setup.checkpointing), size, ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the largest difference of each kind of model")
    options = parser.parse_args()
    by_kind: dict[str, dict[bool, list[Difference]]] = defaultdict(lambda: {True: [], False: []})
    for one in differences():
        by_kind[one.kind][one.checkpoints].append(one)
    print("| architecture | checkpoints: mean | worst | none: mean | worst |\n|---|---|---|---|---|")
    errors: dict[str, dict[str, float]] = {}
    for kind, found in sorted(by_kind.items()):
        cells = []
        for checkpoints, name in ((True, "checkpoints"), (False, "none")):
            ratios = [one.ratio for one in found[checkpoints]]
            if not ratios:
                cells += ["–", "–"]
                continue
            worst = max(ratios, key=abs)
            cells += [f"{sum(map(abs, ratios)) / len(ratios):.1%}", f"{worst:+.1%}"]
            errors.setdefault(kind, {})[name] = math.ceil(100 * abs(worst)) / 100
        print(f"| {kind} | {' | '.join(cells)} |")
    ratios = [one.ratio for found in by_kind.values() for several in found.values() for one in several]
    mean, worst = sum(map(abs, ratios)) / len(ratios), max(ratios, key=abs)
    print(f"\nClosed form against trace, allocated: mean {mean:.1%}, worst {worst:+.1%}, {len(ratios)} steps.")
    if options.write:
        FILE.write_text(json.dumps(errors, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
