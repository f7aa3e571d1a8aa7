"""What an objective changes in the price of a step."""

from workbench.adapters.settings import AdapterSettings
from workbench.estimate import price
from workbench.estimate.flops import training_flops
from workbench.models.trees import skeleton_in_catalog
from workbench.recipe.fields import unread
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit


def test_a_reference_that_is_an_adapter_costs_a_copy_of_it_and_pairs_cost_two_texts() -> None:
    recipe = edit(Recipe(), {"training.gradient_checkpointing": True})
    skeleton = skeleton_in_catalog(recipe.model)
    assert skeleton is not None
    supervised = price(skeleton, recipe)
    of_pairs = price(skeleton, edit(recipe, {"objective.kind": "dpo"}))
    assert of_pairs.peak.allocated_bytes > supervised.peak.allocated_bytes
    assert supervised.objective_note == ""
    assert "both responses of each pair" in of_pairs.objective_note
    start = {"adapter.continue_from": "an-adapter"}
    continued = price(skeleton, edit(of_pairs.recipe, start))
    assert continued.peak.allocated_bytes - of_pairs.peak.allocated_bytes == of_pairs.adapter.added_bytes
    assert continued.peak.terms["adapters"] - of_pairs.peak.terms["adapters"] == of_pairs.adapter.added_bytes
    assert "a copy of the adapter" in continued.objective_note
    # Without a reference the start costs nothing.
    assert price(skeleton, edit(recipe, start)).peak == supervised.peak


def test_a_head_costs_its_rows_and_no_logits_of_the_vocabulary() -> None:
    recipe = edit(Recipe(), {"training.gradient_checkpointing": True})
    skeleton = skeleton_in_catalog(recipe.model)
    assert skeleton is not None
    supervised = price(skeleton, recipe, traced=lambda *_: None)
    changes = {"objective.kind": "classification", "data.source": "labels.jsonl"}
    classifier = price(skeleton, edit(recipe, changes), traced=lambda *_: None, labels=7)
    hidden = skeleton.root.facts["hidden_size"]
    more = classifier.adapter.trainable_parameters - supervised.adapter.trainable_parameters
    assert more == 7 * hidden
    assert classifier.adapter.file_bytes > supervised.adapter.file_bytes + 2 * more
    assert classifier.peak.terms["loss"] < supervised.peak.terms["loss"]
    assert "no logits of the vocabulary" in classifier.objective_note
    reward = price(skeleton, edit(recipe, {"objective.kind": "reward"}), traced=lambda *_: None)
    assert reward.adapter.trainable_parameters - supervised.adapter.trainable_parameters == hidden
    flops = [
        training_flops(skeleton, AdapterSettings.of(recipe.trained_adapter, head), checkpointing=True)
        for head in (0, 7)
    ]
    assert flops[0].per_trained_token > flops[1].per_trained_token == 0


def test_a_method_that_builds_its_weights_is_priced_with_them() -> None:
    changes = {"quantization.method": "none", "training.gradient_checkpointing": True, "adapter.r": 4}
    recipe = edit(Recipe(), changes)
    skeleton = skeleton_in_catalog(recipe.model)
    assert skeleton is not None
    lora = price(skeleton, recipe, traced=lambda *_: None)
    loha = price(skeleton, edit(recipe, {"adapter.method": "loha", **unread("loha")}), traced=lambda *_: None)
    hidden = skeleton.root.facts["hidden_size"]
    # At least the three projections of the MLP, in float32.
    assert loha.peak.allocated_bytes - lora.peak.allocated_bytes > 4 * 3 * hidden * 2 * hidden


def test_kto_never_gets_a_micro_batch_of_one() -> None:
    recipe = edit(Recipe(), {"objective.kind": "kto", "training.per_device_train_batch_size": "auto"})
    skeleton = skeleton_in_catalog(recipe.model)
    assert skeleton is not None
    assert price(skeleton, recipe).setup.micro_batch == 2
