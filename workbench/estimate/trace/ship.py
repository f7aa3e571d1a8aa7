"""Creates the timelines shipped with the package: ``python -m workbench.estimate.trace.ship [TREE...]``.

For all models of the catalog it takes about 20 minutes. Trees are named as in ``presets/models/trees``.
"""

import json
import sys
from collections.abc import Collection, Iterator

from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import plan_adapter
from workbench.estimate.setup import Setup
from workbench.estimate.step import plan_step
from workbench.estimate.trace.run import trace_step
from workbench.estimate.trace.store import SHIPPED, can_trace, key_of
from workbench.estimate.trace.timeline import TimelineData
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.models.skeleton_json import skeleton_to_json
from workbench.models.stored_quantization import recipe_as_loaded, stored_quantization
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

_CHANGE_VALUES_ONLY = {
    "dtype", "initializer_range", "max_position_embeddings", "max_window_layers", "mlp_bias", "pad_token_id",
    "quantization_config", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
}  # fmt: skip
"""Keys of a configuration that do not change the size of any tensor of a step. ``mlp_bias`` shows in the modules."""

# The recipes that users try first.
_STRUCTURES: tuple[dict[str, object], ...] = (
    {"quantization.method": "nf4"},
    {"quantization.method": "nf4", "adapter.target_modules": ["q_proj", "v_proj"]},
    {"quantization.method": "none"},
    {"quantization.method": "int8"},
    {"quantization.method": "nf4", "training.gradient_checkpointing": False},
)


def shipped_recipes(skeleton: Skeleton) -> Iterator[ResolvedRecipe]:
    """The recipes to trace for a model; without dropout if its experts do not support it.

    A base that its files quantize is traced only as it would be loaded.
    """
    for changes in _STRUCTURES:
        for dropout in (0.05, 0.0):
            recipe = edit(resolved(Recipe()), changes | {"adapter.lora_dropout": dropout})
            if recipe_as_loaded(recipe, skeleton.config) != recipe:
                continue
            try:
                plan_adapter(skeleton, recipe.adapter)
            except WorkbenchError:  # no such layers, or no dropout on experts
                continue
            setup = setup_of(skeleton, recipe)
            if can_trace(skeleton, plan_step(setup), setup.adapter):
                yield recipe
            break


def setup_of(skeleton: Skeleton, recipe: ResolvedRecipe) -> Setup:
    """The setup of a recipe on a base, which its files may quantize."""
    return Setup.of(recipe, stored=stored_quantization(skeleton.config))


def _key_of(skeleton: Skeleton, recipe: ResolvedRecipe) -> str:
    setup = setup_of(skeleton, recipe)
    return key_of(skeleton, setup.adapter, plan_step(setup))


def _memory_digest(skeleton: Skeleton) -> str:
    """Equal for models whose steps need the same memory: of equal modules, and configured alike but for numbers that
    change values only. One of them is traced."""
    tree = skeleton_to_json(skeleton)
    root = json.loads(json.dumps(tree["root"]))
    root.get("facts", {}).pop("context_length", None)
    config = {name: value for name, value in skeleton.config.items() if name not in _CHANGE_VALUES_ONLY}
    return json.dumps([root, config], sort_keys=True)


def main(trees: Collection[str] = ()) -> None:
    """Trace what is missing or has no tape or evaluation, the first recipe of every model before the second of any.

    Timelines under keys that no recipe has any more are removed.

    Args:
        trees: the module trees to trace; all if it is empty.
    """
    timelines: dict[str, TimelineData] = json.loads(SHIPPED.read_text(encoding="utf-8")) if SHIPPED.exists() else {}
    models = {entry.tree: catalog_skeleton(entry.id) for entry in catalog()}
    wanted = [
        (place, skeleton.root.facts.get("layers", 0), tree, skeleton, recipe)
        for tree, skeleton in models.items()
        if skeleton
        for place, recipe in enumerate(shipped_recipes(skeleton))
    ]
    keys = {_key_of(skeleton, recipe) for _, _, _, skeleton, recipe in wanted}
    timelines = {key: timeline for key, timeline in timelines.items() if key in keys}
    done: dict[tuple[str, str], str] = {}
    for _, _, tree, skeleton, recipe in sorted(wanted, key=lambda item: item[:3]):
        if trees and tree not in trees:
            continue
        step = plan_step(setup_of(skeleton, recipe))
        key = _key_of(skeleton, recipe)
        alike = (_memory_digest(skeleton), json.dumps(recipe.as_dict(), sort_keys=True))
        if {"tape", "evaluation"} <= timelines.get(key, {}).keys():
            done[alike] = key
            continue
        try:
            other = done.get(alike)
            timelines[key] = timelines[other] if other else trace_step(skeleton, recipe, step).as_json()
        except Exception as error:  # see run.main
            print(f"{tree}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        done[alike] = key
        lines = (f'"{name}":{json.dumps(timelines[name], separators=(",", ":"))}' for name in sorted(timelines))
        SHIPPED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        print(tree, recipe.quantization.method, recipe.adapter.target_modules, len(timelines), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
