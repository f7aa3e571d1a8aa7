"""Every method trains, resumes exactly, replies from its file, and merges."""

from pathlib import Path

import pytest
import torch

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, killed_after, resumed
from workbench.adapters.registry import methods
from workbench.engine.model.adapters import ActiveAdapters, merge, use_adapters
from workbench.engine.model.base import LoadedBase
from workbench.errors import WorkbenchError
from workbench.recipe.fields import unread
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home

# What fits the tiny model, and a learning rate at which six steps show.
SETTINGS: dict[str, dict[str, object]] = {
    "lora": {"adapter.lora_dropout": 0.1},
    "adalora": {"adapter.lora_dropout": 0.1, "adapter.r": 6, "adapter.options": {"target_r": 2, "tfinal": 2}},
    "ia3": {"training.learning_rate": 0.2},
    "vera": {"adapter.r": 64, "training.learning_rate": 0.1},
    "c3a": {"adapter.options": {"block_size": 16}},
    "road": {"adapter.options": {"group_size": 16}, "training.learning_rate": 0.1},
    "fourierft": {"adapter.options": {"n_frequency": 200}, "training.learning_rate": 0.5},
    "shira": {"adapter.r": 4},
    "oft": {"adapter.options": {"oft_block_size": 8}},
}
SIX = {
    "quantization.method": "none",
    "quantization.compute_dtype": "float32",
    "training.max_steps": 6,
    "training.save_steps": 3,
    "training.save_total_limit": 10,
}


def recipe_of(method: str, model: object, records: object) -> Recipe:
    recipe = tiny_recipe(model, records)
    return edit(recipe, SIX | {"adapter.method": method} | unread(method) | SETTINGS.get(method, {}))


@pytest.fixture(scope="module")
def shared() -> dict[str, LoadedBase]:
    """The base that the runs of this file share, once the first one has loaded it."""
    return {}


@pytest.mark.parametrize("method", methods())
def test_a_run_learns_resumes_replies_and_merges(tmp_path: Path, tiny_llama, records, shared, method) -> None:
    home, recipe = Home(tmp_path / "home"), recipe_of(method, tiny_llama, records)
    run, thread = begin(home, recipe, shared.get("base"))
    ended(thread)
    base = shared["base"] = thread.base
    losses = list(curve(run).values())
    assert losses[-1] < losses[0] - 0.02, losses

    again = killed_after(run, 5, home)
    resumed(home, again, base)
    assert curve(again) == curve(run)
    assert adapter_digest(again) == adapter_digest(run)

    ids = torch.arange(5, 25)[None]
    trained = ActiveAdapters(((run.adapter, 1.0),))
    with torch.no_grad():
        base.detach_all()
        alone = base.active(input_ids=ids).logits
        with use_adapters(base, trained):
            adapted = base.active(input_ids=ids).logits
        assert not torch.allclose(adapted, alone, atol=1e-3)
        with use_adapters(base, ActiveAdapters()):
            assert torch.equal(base.active(input_ids=ids).logits, alone)
        if not methods()[method].scales:
            with pytest.raises(WorkbenchError, match="only LoRA"), use_adapters(base, ActiveAdapters(trained.parts, 2)):
                pass
        base.detach_all()
        merge(base, trained)
        shared.clear()
        assert torch.allclose(base.active(input_ids=ids).logits, adapted, atol=1e-3)
