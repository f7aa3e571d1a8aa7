"""The workbench from Python, as in a notebook: its thread already runs an event loop."""

import pytest

from workbench.api import Run, WorkbenchError, estimate, open_engine, runs
from workbench.engine.client.protocol import Sampling
from workbench.recipe.text import edit
from workbench.runs.events import RunEnded, Step

GREEDY = Sampling(temperature=0, max_new_tokens=8)


async def test_from_a_recipe_to_the_history_of_its_run_and_a_reply(recipe, tmp_path):
    home = tmp_path / "home"
    engine = open_engine(home)
    try:
        with engine:
            run = engine.train(recipe)
            assert (run.summary().state, run.recipe()) == ("finished", recipe)
            assert (run.adapter / "adapter_model.safetensors").is_file()
            history = run.history()
            losses = history.dropna(subset="loss")
            assert list(losses["step"]) == list(range(1, 9))
            assert losses["step"].dtype == "Int64"
            assert losses["loss"].iloc[-1] < losses["loss"].iloc[0]

            events = list(Run.find(run.id, home).events())
            assert [event.step for event in events if isinstance(event, Step)] == list(range(1, 9))
            assert isinstance(events[-1], RunEnded)
            assert [one.id for one in runs(home)] == [run.id]

            shown = []
            question = "Where is the anchor?"
            reply = engine.chat(run.id, question, GREEDY, show=shown.append)
            assert reply.content == "".join(shown)
            assert engine.chat(run.id, question, GREEDY, adapter=False).content != reply.content
            with pytest.raises(WorkbenchError, match="no-such-run"):
                engine.chat("no-such-run", question)
            assert engine.status().run is None
    finally:
        open_engine(home).shut_down()
    with pytest.raises(WorkbenchError, match="no-such-run"):
        Run.find("no-such-run", home)


def test_an_estimate_counts_what_is_trained(recipe, tmp_path):
    known = estimate(edit(recipe, {"adapter.r": 4}), home=tmp_path)
    assert known.adapter.trainable_parameters * 2 == estimate(recipe, home=tmp_path).adapter.trainable_parameters
    assert known.peak.allocated_bytes > known.base.true_bytes
