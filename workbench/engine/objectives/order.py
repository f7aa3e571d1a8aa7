"""The order in which a trainer gets the records of a run."""

from typing import TYPE_CHECKING

from workbench.recipe.schema import Recipe

if TYPE_CHECKING:
    from datasets import Dataset


def in_trained_order(records: "Dataset", recipe: Recipe) -> "Dataset":
    """The training records of a run. Unpaired ones are shuffled once, since their trainer reads them in their order.

    Otherwise both sides of a pair would be neighbors, whose responses are exchanged.
    """
    return records.shuffle(seed=recipe.training.order_seed) if recipe.objective.spec.records == "unpaired" else records
