"""Creates the timelines shipped with the package: ``python -m workbench.estimate.trace.ship``. About 20 minutes."""

import json
import sys
from collections.abc import Iterator

from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import plan_adapter
from workbench.estimate.setup import Setup
from workbench.estimate.step import plan_step
from workbench.estimate.trace.run import trace_step
from workbench.estimate.trace.store import SHIPPED, can_trace, key_of
from workbench.estimate.trace.timeline import TimelineData
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

# The recipes that users try first.
_STRUCTURES: tuple[dict[str, object], ...] = (
    {"quantization.method": "nf4"},
    {"quantization.method": "nf4", "adapter.target_modules": ["q_proj", "v_proj"]},
    {"quantization.method": "none"},
    {"quantization.method": "int8"},
    {"quantization.method": "nf4", "training.gradient_checkpointing": False},
)


def shipped_recipes(skeleton: Skeleton) -> Iterator[ResolvedRecipe]:
    """The recipes to trace for a model; without dropout if its experts do not support it."""
    for changes in _STRUCTURES:
        for dropout in (0.05, 0.0):
            recipe = edit(resolved(Recipe()), changes | {"adapter.lora_dropout": dropout})
            try:
                plan_adapter(skeleton, recipe.adapter)
            except WorkbenchError:  # no such layers, or no dropout on experts
                continue
            if can_trace(skeleton, plan_step(Setup.of(recipe))):
                yield recipe
            break


def main() -> None:
    """Trace the missing timelines, the first recipe of every model before the second of any."""
    timelines: dict[str, TimelineData] = json.loads(SHIPPED.read_text(encoding="utf-8")) if SHIPPED.exists() else {}
    models = {entry.tree: catalog_skeleton(entry.id) for entry in catalog()}
    wanted = [
        (place, skeleton.root.facts.get("layers", 0), tree, skeleton, recipe)
        for tree, skeleton in models.items()
        if skeleton
        for place, recipe in enumerate(shipped_recipes(skeleton))
    ]
    for _, _, tree, skeleton, recipe in sorted(wanted, key=lambda item: item[:3]):
        setup = Setup.of(recipe)
        step = plan_step(setup)
        key = key_of(skeleton, setup.adapter, step)
        if key in timelines:
            continue
        try:
            timelines[key] = trace_step(skeleton, recipe, step).as_json()
        except Exception as error:  # see run.main
            print(f"{tree}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        lines = (f'"{name}":{json.dumps(timelines[name], separators=(",", ":"))}' for name in sorted(timelines))
        SHIPPED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        print(tree, recipe.quantization.method, recipe.adapter.target_modules, len(timelines), file=sys.stderr)


if __name__ == "__main__":
    main()
