"""OpenAI's own client against a server with a base and two adapters: the replies are those of `generate`."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.conftest import tiny_recipe
from tests.engine.voices_of_tiny import plain_base, plain_reply, run_with_adapter
from workbench.engine.generation.context import context_length
from workbench.errors import WorkbenchError
from workbench.recipe.text import edit
from workbench.serving.access import choose_access, listen
from workbench.serving.models import load_served
from workbench.serving.server import Server
from workbench.storage.paths import Home

TOKEN = "sesame"
QUESTIONS = [
    "Why do ships float?",
    "How do I sort a list?",
    "What is the capital of France? " * 4,
    "Explain to a child why bread rises.",
]


@pytest.fixture(scope="module")
def served(tiny_llama, records, tmp_path_factory):
    """The base in 32 bits, so that a batch differs from a single request by less than the likeliest tokens do."""
    home = Home(tmp_path_factory.mktemp("served") / "home")
    exact = edit(
        tiny_recipe(tiny_llama, records), {"quantization.method": "none", "quantization.compute_dtype": "float32"}
    )
    names = ["mate", "cook"]
    runs = [run_with_adapter(home, edit(exact, {"output.name": name}), seed) for seed, name in enumerate(names)]
    return load_served(home, [f"mate={runs[0].id}", f"cook={runs[1].adapter}"], "", lambda _: None, lambda: False)


def test_what_cannot_be_served_is_a_sentence(served, tiny_llama, tmp_path):
    home = Home(tmp_path)
    for names, words in (
        (["mate-77"], "mate-77"),
        ([f"a={tiny_llama}", f"a={tiny_llama}"], "Two of the models would be called a."),
    ):
        with pytest.raises(WorkbenchError) as error:
            load_served(home, names, "", lambda _: None, lambda: False)
        assert words in error.value.message


class Running:
    """A server in a thread, and what it reported."""

    def __init__(self, served, folder):
        self.finished = []
        access = choose_access(None, "127.0.0.1", 0, None, no_token=True, allow_remote=False)
        self.listener = listen(access)
        self.url = access.at(self.listener).url
        self.server = Server(Home(folder / "home"), served, TOKEN, 4096, self.finished.append)
        self._loop = asyncio.new_event_loop()
        self._is_ending = asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self.server.run(self.listener, self._is_ending),)
        )
        self._thread.start()

    def close(self):
        self._loop.call_soon_threadsafe(self._is_ending.set)
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.listener.close()


@pytest.fixture(scope="module")
def running(served, tmp_path_factory):
    running = Running(served, tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=running.url, api_key=TOKEN, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def expected(tiny_llama, served):
    """By model and question: the greedy reply of plain transformers and PEFT."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    replies = {}
    for name, served_model in served.models.items():
        model = plain_base(tiny_llama, "none", "float32")
        for folder in served_model.adapters.folders:
            model = PeftModel.from_pretrained(model, folder)
        replies |= {(name, question): plain_reply(model, tokenizer, 24, question) for question in QUESTIONS}
    return replies


def _ask(client, model, question, **options):
    options = {"temperature": 0, "max_tokens": 24} | options
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}], **options)


def test_the_models_are_listed_by_their_names(client, tiny_llama):
    assert [model.id for model in client.models.list()] == ["mate", "cook", tiny_llama.name]
    assert client.models.retrieve("mate").id == "mate"


def test_each_reply_is_that_of_generate_whole_or_streamed_alone_or_beside_eleven_others(client, expected):
    assert len(set(expected.values())) == len(expected)  # the adapters matter

    def streamed(model, question):
        chunks = list(_ask(client, model, question, stream=True, stream_options={"include_usage": True}))
        assert chunks[0].choices[0].delta.role == "assistant"
        assert 0 < chunks[-1].usage.completion_tokens <= 24
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    def whole(model, question):
        return _ask(client, model, question).choices[0].message.content

    with ThreadPoolExecutor(len(expected)) as threads:
        for ask in (whole, streamed):
            replies = threads.map(ask, *zip(*expected, strict=True))
            assert dict(zip(expected, replies, strict=True)) == expected
    key = next(iter(expected))
    assert whole(*key) == expected[key]


def test_a_seed_gives_the_same_reply_alone_and_in_a_batch(client):
    def sampled(seed):
        answer = _ask(client, "mate", QUESTIONS[0], temperature=1.3, top_p=0.9, seed=seed)
        return answer.choices[0].message.content

    alone = sampled(7)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(sampled, [7, 8, 7, 9]))[::2] == [alone, alone]
    assert sampled(8) != alone


def test_a_reply_ends_at_a_stop_text_and_at_its_length(client, expected):
    (model, question), text, stop = next(
        (key, text, text[at : at + 2])
        for key, text in expected.items()
        for at in range(3, len(text) - 2)
        if text[at : at + 2].isascii()
    )
    answer = _ask(client, model, question, stop=[stop, "never written"])
    assert answer.choices[0].message.content == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    streamed = list(_ask(client, model, question, stop=stop, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == text[: text.index(stop)]
    short = _ask(client, model, question, max_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)


def test_log_probabilities_are_the_models_own(client, tiny_llama):
    import torch
    from transformers import AutoTokenizer

    model = plain_base(tiny_llama, "none", "float32")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    prompt = tokenizer("The mate stood on")["input_ids"]
    told = client.completions.create(
        model=tiny_llama.name, prompt="The mate stood on", max_tokens=4, temperature=0, logprobs=2
    ).choices[0].logprobs  # fmt: skip
    for logprob, top in zip(told.token_logprobs, told.top_logprobs, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        token = int(logprobs.argmax())
        assert logprob == pytest.approx(float(logprobs[token]), abs=1e-4)
        assert sorted(top.values(), reverse=True) == pytest.approx(logprobs.topk(2).values.tolist(), abs=1e-4)
        prompt.append(token)
    entry = _ask(client, "mate", QUESTIONS[0], max_tokens=2, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert [len(token.top_logprobs) for token in entry] == [3, 3]
    assert entry[0].token == entry[0].top_logprobs[0].token


def test_a_biased_token_is_not_written_again(client, tiny_llama):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    question = {"model": tiny_llama.name, "prompt": "The mate", "max_tokens": 8, "temperature": 0}
    first = tokenizer(client.completions.create(**question).choices[0].text)["input_ids"][0]
    banned = client.completions.create(**question, logit_bias={str(first): -100})
    assert first not in tokenizer(banned.choices[0].text)["input_ids"]
    once = client.completions.create(**question, presence_penalty=2, frequency_penalty=2, extra_body={"top_k": 5})
    assert once.usage.completion_tokens == 8


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "captain"}, 404, "There is no model captain here. Served: mate, cook, tiny-llama."),
        ({"max_tokens": 0}, 400, "max_tokens: input should be greater than or equal to 1"),
        ({"n": 2}, 400, "n: "),
        ({"extra_body": {"guided_regex": "a"}}, 400, "guided_regex is not supported by this server"),
        ({"messages": [{"role": "user", "content": "why " * 600}]}, 400, "tokens; the model's context has 512"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            r"messages[0].content[0] is of type image_url; this server reads only text",
        ),
        ({"messages": [{"role": "user", "content": "a", "weight": 2}]}, 400, "messages[0] has weight"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "template writes no tools"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_says_why(client, change, status, words):
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(
            **{"model": "mate", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2, **change}
        )
    assert error.value.status_code == status
    assert words in error.value.body["message"]


def test_nobody_without_the_token_is_answered(running):
    for key in ("open", "sesam\u00e9"):
        refused = httpx.get(f"{running.url}/models", headers=[(b"Authorization", f"Bearer {key}".encode())])
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
    assert httpx.post(f"{running.url}/chat/completions", content=b"{").status_code == 401
    broken = httpx.post(f"{running.url}/chat/completions", content=b"{", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "bad_request")


def test_a_client_that_goes_away_ends_its_request_alone(client, running, expected):
    before = len(running.finished)
    stream = _ask(client, "mate", QUESTIONS[1], stream=True, max_tokens=400, temperature=1, logit_bias={"2": -100})
    next(iter(stream))
    stream.close()
    key = "cook", QUESTIONS[1]
    assert _ask(client, *key).choices[0].message.content == expected[key]
    deadline = threading.Event()
    while len(running.finished) < before + 2 and not deadline.wait(0.02):
        pass
    canceled, *_ = [request for request in running.finished[before:] if request.reason == "canceled"]
    assert canceled.tokens < 400
    assert running.finished[-1].running == 0


def test_a_reply_has_no_more_room_than_the_context(client, served, tiny_llama):
    limit = context_length(served.base.model.config)
    answer = client.completions.create(
        model=tiny_llama.name, prompt="The mate", max_tokens=10_000, temperature=0, logit_bias={"2": -100, "0": -100}
    )
    assert answer.usage.total_tokens == limit
    assert answer.choices[0].finish_reason == "length"
