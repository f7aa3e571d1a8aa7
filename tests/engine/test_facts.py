"""The facts of a dataset over the wire: a sample's first, exact ones later, whatever else the engine does."""

import asyncio
import json
from contextlib import aclosing

import psutil
import pytest

from workbench.data.facts import DataFacts
from workbench.engine.client.client import EngineClient
from workbench.engine.client.protocol import CancelRequest, StopRequest
from workbench.engine.client.requests import examples_request, facts_request, train_request
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.text import edit


@pytest.fixture
def home(shared_home):
    return shared_home


async def dataset_stats(engine, recipe, **more):
    return [answer async for answer in engine.facts(facts_request(recipe, **more))]


def facts_of(answers):
    return [answer for answer in answers if isinstance(answer, DataFacts)]


async def comes_to_rest(pid, seconds=20):
    """Whether a process stops computing."""
    process = psutil.Process(pid)
    for _ in range(2 * seconds):
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(0.5)
        if sum(process.cpu_times()[:2]) - before < 0.1:
            return True
    return False


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough records that counting them all takes longer than a glance."""
    path = tmp_path_factory.mktemp("data") / "many.jsonl"
    line = {"question": "What is the capital? " * 10, "answer": "Paris, as every mate knows. " * 10}
    path.write_text((json.dumps(line) + "\n") * 20_000, encoding="utf-8")
    return path


async def test_few_records_are_exact_at_once_and_shown_as_they_are_fed(engine, recipe):
    answers = await dataset_stats(engine, recipe, show=5)
    (facts,) = facts_of(answers)
    assert facts.exact
    assert facts.records == 20
    assert len(facts.examples) == 5
    example = facts.examples[0]
    trained = "".join(example.text[start:end] for start, end, is_trained in example.spans if is_trained)
    assert trained.strip() == "Aye, answer 0.<|im_end|>"
    assert any(isinstance(answer, Progress) for answer in answers)
    assert facts == DataFacts.from_json(
        facts.as_json() | {"examples": [example.as_json() for example in facts.examples]}
    )


async def test_many_records_are_first_answered_from_a_sample(engine, recipe, many):
    recipe = edit(recipe, {"data.source": str(many), "data.max_length": 512})
    await engine.examples(examples_request(recipe, 0))  # the tokenizer is loaded
    async with aclosing(engine.facts(facts_request(recipe))) as answers:
        async for answer in answers:
            if isinstance(answer, DataFacts):
                break
    assert not answer.exact
    assert answer.records == 256
    assert await comes_to_rest((await engine.status()).pid), "the count goes on although nobody listens"


async def test_cancel_ends_the_count_and_says_so(engine, recipe, many):
    recipe = edit(recipe, {"data.source": str(many)})
    answers = engine.facts(facts_request(recipe), request_id="mine")
    async for answer in answers:
        if isinstance(answer, DataFacts):
            break
    cancelling = asyncio.create_task(engine.cancel(CancelRequest(id="mine")))
    with pytest.raises(WorkbenchError) as ended:
        async for _ in answers:
            pass
    await cancelling
    assert ended.value.kind == "cancelled"
    assert (await engine.status()).state == "idle"


async def test_cancelling_one_count_leaves_the_other(engine, home, recipe, many):
    recipe = edit(recipe, {"data.source": str(many)})
    other = EngineClient(home)
    request = facts_request(recipe)
    mine, theirs = engine.facts(request, request_id="mine"), other.facts(request, request_id="theirs")
    assert not facts_of([await anext(mine), await anext(theirs)])  # both have begun
    await engine.cancel(CancelRequest(id="nobody's"))
    await engine.cancel(CancelRequest(id="mine"))
    with pytest.raises(WorkbenchError) as ended:
        async for _ in mine:
            pass
    assert ended.value.kind == "cancelled"
    assert facts_of([answer async for answer in theirs])[-1].exact
    await other.close()


async def test_facts_are_answered_while_a_run_trains(engine, recipe):
    await engine.train(train_request(edit(recipe, {"training.max_steps": 2000})))
    (facts,) = facts_of(await dataset_stats(engine, recipe))
    assert facts.records == 20
    assert (await engine.status()).state == "training"
    await engine.stop(StopRequest(save=False))


async def test_the_longest_record_is_given_alone_and_a_search_finds_its_records(engine, recipe):
    (example,) = await engine.examples(examples_request(recipe, 7))
    assert example.index == 7
    found = await engine.examples(examples_request(recipe, 0, 10, "QUESTION 3?"))
    assert [example.index for example in found] == [3, 8, 13, 18]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"model.source": "somebody/never-fetched"}, "tokenizer_elsewhere"),
        ({"data.source": "somebody/some-data"}, "data_elsewhere"),
    ],
)
async def test_what_is_elsewhere_is_not_fetched_unasked(engine, recipe, changes, kind):
    with pytest.raises(WorkbenchError) as refused:
        await dataset_stats(engine, edit(recipe, changes))
    assert refused.value.kind == kind
