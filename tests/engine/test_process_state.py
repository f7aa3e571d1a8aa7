"""What belongs to the whole process stays as it is while another thread loads a base or trains.

PyTorch's default number type does: transformers sets it while it makes a model. A tree that an API thread built while a
run loaded its base left it at bfloat16, and that engine computed every later loss so; a run killed in it and resumed by
the next engine became another run.
"""

import threading

import pytest
import torch
from starlette.testclient import TestClient

from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, events_of
from workbench.engine.daemon.api import Api
from workbench.engine.daemon.engine import Engine
from workbench.recipe.text import edit


@pytest.fixture
def look_at_tree(home, tiny_llama):
    """A function that asks an engine's API for a tree, as Models does when a model is taken."""

    async def api():
        return Api(Engine(home))

    import asyncio

    served = asyncio.run(api())
    try:
        with TestClient(served.app()) as client:

            def look():
                answer = client.post("/tree", json={"source": str(tiny_llama)})
                assert answer.status_code == 200, answer.text
                return answer.json()

            yield look
    finally:
        served.sources.close()


def test_a_number_type_that_somebody_left_behind_is_set_back_and_told(home, recipe):
    whole, thread = begin(home, recipe)
    ended(thread)
    torch.set_default_dtype(torch.bfloat16)
    try:
        again, thread = begin(home, recipe)
        ended(thread)
        assert torch.get_default_dtype() is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    (warning,) = [event for event in events_of(again, "warning") if event.get("kind") == "default_dtype"]
    assert "left PyTorch's default dtype at bfloat16; it is reset to float32" in warning["message"]
    assert curve(again) == curve(whole)


def test_looking_at_a_model_while_another_is_loaded_changes_nothing_that_is_computed(
    home, recipe, look_at_tree, monkeypatch
):
    recipe = edit(recipe, {"adapter.lora_dropout": 0.1})
    whole, thread = begin(home, recipe)
    ended(thread)
    looked, tree_has_begun, tree_is_done = [], threading.Event(), threading.Event()
    base_is_loaded = threading.Event()
    set_default = torch.set_default_dtype

    def look():
        looked.append(look_at_tree())
        tree_is_done.set()

    def set_in_the_worst_order(dtype):
        """The run sets it, the tree sets it, the run puts back what it found, the tree puts back what it found."""
        is_run = threading.current_thread().name.startswith("train")
        if not is_run and not tree_has_begun.is_set():
            tree_has_begun.set()
        elif not is_run:
            base_is_loaded.wait(60)
        set_default(dtype)
        if is_run and dtype == torch.bfloat16 and not looked and not tree_is_done.is_set():
            threading.Thread(target=look, daemon=True).start()
            while not (tree_has_begun.wait(0.01) or tree_is_done.is_set()):
                pass
        elif is_run:
            base_is_loaded.set()

    monkeypatch.setattr(torch, "set_default_dtype", set_in_the_worst_order)
    try:
        again, thread = begin(home, recipe)
        ended(thread)
        assert tree_is_done.wait(60)
        assert looked[0]["architecture"] == "LlamaForCausalLM"
        assert torch.get_default_dtype() is torch.float32
        assert not [event for event in events_of(again, "warning") if event.get("kind") == "default_dtype"]
        assert curve(again) == curve(whole)
        assert adapter_digest(again) == adapter_digest(whole)
    finally:
        set_default(torch.float32)
        base_is_loaded.set()
