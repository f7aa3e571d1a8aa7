"""The routers' balancing loss: part of the gradient where the recipe asks for it, and never of the loss curve."""

import pytest

from tests.conftest import make_tiny_model, tiny_recipe
from tests.engine.runs_of_tiny import begin, curve, ended, events_of
from workbench.recipe.text import edit

WEIGHT = "training.router_aux_loss"


@pytest.fixture(scope="module")
def tiny_mixture(tmp_path_factory):
    from transformers import Qwen3MoeForCausalLM

    settings = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
    return make_tiny_model(tmp_path_factory.mktemp("models") / "mixture", Qwen3MoeForCausalLM, **settings)


def test_it_is_in_the_gradient_and_beside_the_loss_in_the_journal(home, tiny_mixture, records):
    changes = {"training.max_steps": 3, "data.eval_fraction": 0.0, "quantization.method": "none"}
    recipe = edit(tiny_recipe(tiny_mixture, records), changes)
    without, thread = begin(home, recipe)
    ended(thread)
    added, thread = begin(home, edit(recipe, {WEIGHT: 5.0}), thread.base)
    ended(thread)
    assert curve(added)[1] == curve(without)[1]
    assert curve(added)[3] != curve(without)[3]
    assert all("router_aux_loss" not in step or step["router_aux_loss"] is None for step in events_of(without, "step"))
    # Mixtral's loss is the number of chosen experts where all are used alike, and more where they are not.
    assert all(1.9 < step["router_aux_loss"] < 4.1 for step in events_of(added, "step"))
    assert events_of(added, "step")[0]["grad_norm"] != events_of(without, "step")[0]["grad_norm"]


def test_a_model_without_routers_says_that_it_has_no_effect(home, recipe):
    run, thread = begin(home, edit(recipe, {WEIGHT: 0.1, "training.max_steps": 1}))
    ended(thread)
    (warning,) = [event for event in events_of(run, "warning") if event["kind"] == "router_aux_loss"]
    assert warning["message"] == (
        "training.router_aux_loss has no effect: LlamaForCausalLM computes no load-balancing loss."
    )
