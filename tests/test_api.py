"""The workbench from Python, as in a notebook: its thread already runs an event loop."""

import ast
import asyncio
import json
from pathlib import Path

import pytest

import workbench
from workbench.api import Run, WorkbenchError, estimate, open_engine, runs
from workbench.engine.client.protocol import Message, Sampling
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


def test_the_package_offers_the_names_of_the_interface():
    from workbench import Recipe, api

    assert [getattr(workbench, name) for name in ("Recipe", "Run", "open_engine")] == [Recipe, Run, open_engine]
    assert set(workbench.__all__) - {"__version__"} <= set(api.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        workbench.nothing  # noqa: B018
    # Also where the package of that name was imported before.
    assert workbench.estimate(Recipe()).peak == estimate(Recipe()).peak


async def test_the_notebook_runs_from_its_first_cell_to_its_last(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("LORAWORKBENCH_HOME", str(tmp_path / "home"))
    notebook = json.loads((Path(__file__).parents[1] / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], {cell["cell_type"] for cell in notebook["cells"]}) == (4, {"markdown", "code"})
    assert asyncio.get_running_loop()  # as in a notebook
    names: dict[str, object] = {}
    shown = []
    try:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                assert not cell["outputs"]
                is_parameters = "parameters" in cell["metadata"].get("tags", ())
                shown.append(_run_cell(f"settings = {recipe.as_dict()!r}" if is_parameters else cell["source"], names))
    finally:
        open_engine().shut_down()
    assert "parameters" in shown[2]
    assert list(shown[3]["step"]) == list(names["history"]["step"])[-5:]
    assert list(names["history"].dropna(subset="loss")["step"]) == list(range(1, 9))
    assert [type(names[name]) for name in ("tuned", "base")] == [Message, Message]


def _run_cell(source, names):
    """Run a cell as a notebook does; returns the value of its last line, if that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last is not None else None
