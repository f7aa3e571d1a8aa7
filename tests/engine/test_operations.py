"""The engine's operations: each declared once, implemented, and refused as declared."""

import pytest

from tests.screens.scripted import ScriptedEngine
from workbench.engine.client.engine_api import EngineApi, operations
from workbench.engine.client.operation import Call
from workbench.engine.client.protocol import (
    ControlRequest,
    EvaluateRequest,
    Message,
    ReplyRequest,
    ShutdownRequest,
    StopRequest,
)
from workbench.engine.client.requests import facts_request, resume_request, train_request
from workbench.engine.daemon.api import Api
from workbench.engine.daemon.engine import Engine
from workbench.errors import WorkbenchError
from workbench.models.catalog import catalog_skeleton
from workbench.planning.queue import QueueRequest
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import ModelSection

REPLY = ReplyRequest(target="run-01", messages=[Message(role="user", content="Who sails her?")])
REQUESTS = {
    EngineApi.train: train_request(Recipe()),
    EngineApi.resume: resume_request("run-01"),
    EngineApi.control: ControlRequest(action="pause"),
    EngineApi.stop: StopRequest(),
    EngineApi.reply: REPLY,
    EngineApi.evaluate: EvaluateRequest(run="run-01"),
    EngineApi.edit_queue: QueueRequest(action="remove", ids=[7]),
    EngineApi.tree: ModelSection(),
    EngineApi.facts: facts_request(Recipe()),
    EngineApi.unload: None,
    EngineApi.shutdown: ShutdownRequest(),
}
# Whether data is elsewhere is not the scripted engine's to say: see test_facts.py.
IDLE = ("no_run", "queue_entry", "model_not_found", "tokenizer_elsewhere")


def refusing(kind):
    """The operations that declare a refusal."""
    found = [operation for operation in operations().values() if kind in getattr(operation, "refusals", ())]
    assert found
    return found


async def asked(engine, operation, request):
    """Ask, and wait for all of the answer."""
    if isinstance(operation, Call):
        await engine.call(operation, request)
    else:
        [item async for item in engine.stream(operation, request)]


async def kind_of_refusal(engine, operation, request=...):
    """With which kind of error an operation ends."""
    with pytest.raises(WorkbenchError) as caught:
        await asked(engine, operation, REQUESTS[operation] if request is ... else request)
    return caught.value.kind


async def test_every_operation_has_its_route(home):
    routes = {(route.path, method) for route in Api(Engine(home)).app().routes for method in route.methods - {"HEAD"}}
    assert routes == {(one.path, getattr(one, "method", "POST")) for one in operations().values()}


@pytest.mark.parametrize("kind", IDLE)
async def test_what_an_idle_engine_refuses(home, kind):
    engine = ScriptedEngine(home)
    assert [await kind_of_refusal(engine, one) for one in refusing(kind)] == [kind] * len(refusing(kind))
    await engine.close()


async def test_what_an_engine_that_trains_refuses(home):
    engine = ScriptedEngine(home)
    engine.begin(Recipe())
    engine.finish("stopped")
    engine.begin(Recipe())
    assert [await kind_of_refusal(engine, one) for one in refusing("busy")] == ["busy"] * len(refusing("busy"))
    assert await kind_of_refusal(engine, EngineApi.resume, resume_request("run-02")) == "nothing_to_resume"
    await engine.close()


async def test_what_an_engine_that_ends_refuses(home):
    engine = ScriptedEngine(home)
    engine.begin(Recipe())
    engine.finish("stopped")
    engine.ends()
    refused = [await kind_of_refusal(engine, one) for one in refusing("engine_gone")]
    assert refused == ["engine_gone"] * len(refused)
    await engine.close()


async def test_without_an_engine_every_operation_says_so(home):
    engine = ScriptedEngine(home, running=False)
    refused = [await kind_of_refusal(engine, one) for one in REQUESTS]
    assert refused == ["engine_gone"] * len(REQUESTS)
    await engine.close()


async def test_an_answer_of_another_version_is_told(home, monkeypatch):
    engine = ScriptedEngine(home)
    answers = {"status": b'{"state": "dreaming"}', "reply": "Dream"}

    class _Other:
        async def call(self, *arguments, is_prompt):
            return answers["status"]

        async def stream(self, *arguments):
            yield answers["reply"], "{}"

    monkeypatch.setattr(engine, "_connect", _Other)
    assert await kind_of_refusal(engine, EngineApi.status, None) == "bad_answer"
    assert await kind_of_refusal(engine, EngineApi.reply) == "bad_answer"


async def test_every_tree_of_the_catalog_arrives_as_it_was_sent(home):
    engine = ScriptedEngine(home)
    for model in ("HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen3-30B-A3B", "openai-community/gpt2"):
        engine.sources.skeleton = catalog_skeleton(model)
        assert engine.sources.skeleton is not None
        assert await engine.tree(ModelSection(source=model)) == engine.sources.skeleton
    await engine.close()
