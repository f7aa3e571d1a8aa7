"""An engine without work gives back what it holds, and what came before it leaves nothing behind."""

import asyncio
import json
import threading
import time

import psutil
import pytest

from tests.conftest import make_tiny_llama
from workbench.engine.client.process import engine_pid, find_engine
from workbench.engine.client.protocol import Message, ReplyRequest, Sampling
from workbench.engine.client.requests import train_request
from workbench.engine.daemon.engine import Engine
from workbench.engine.daemon.idle import IdleLimits
from workbench.recipe.text import edit

MINUTE = 60.0


@pytest.mark.parametrize(
    ("settings", "unload", "stop"),
    [
        (None, 10 * MINUTE, 30 * MINUTE),
        ("no json", 10 * MINUTE, 30 * MINUTE),
        ({"engine": 3}, 10 * MINUTE, 30 * MINUTE),
        ({"engine": {"unload_after_minutes": 1.5}}, 90, 30 * MINUTE),
        ({"engine": {"unload_after_minutes": 0, "stop_after_minutes": 0}}, float("inf"), float("inf")),
        ({"engine": {"unload_after_minutes": "soon", "stop_after_minutes": -1}}, 10 * MINUTE, 30 * MINUTE),
        ({"engine": {"unload_after_minutes": True}}, 10 * MINUTE, 30 * MINUTE),
    ],
)
def test_limits_are_the_users_or_the_usual_ones(home, settings, unload, stop):
    if settings is not None:
        home.root.mkdir(parents=True)
        home.settings.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    assert IdleLimits.of(home) == IdleLimits(unload, stop)


@pytest.fixture
def looks_often(home):
    """An engine looks at its settings three times in the shortest of its limits: here, each second."""
    home.root.mkdir(parents=True)
    home.settings.write_text(json.dumps({"engine": {"unload_after_minutes": 0.05, "stop_after_minutes": 100}}))


async def test_an_idle_engine_first_unloads_its_model_and_then_ends(home, looks_often, engine, recipe):
    await engine.train(train_request(edit(recipe, {"training.max_steps": 2})))
    while (status := await engine.status()).state != "idle":
        await asyncio.sleep(0.1)
    assert status.model is not None
    async with asyncio.timeout(60):
        while (await engine.status()).model is not None:
            await asyncio.sleep(0.2)
    home.settings.write_text(json.dumps({"engine": {"stop_after_minutes": 0.02}}))
    async with asyncio.timeout(60):
        while engine_pid(home) is not None:
            await asyncio.sleep(0.2)
    assert await find_engine(home) is None


@pytest.fixture(scope="module")
def wide_llamas(tmp_path_factory):
    """Two models large enough that one which is forgotten shows in the memory of the process."""
    folder = tmp_path_factory.mktemp("wide")
    return [make_tiny_llama(folder / name, hidden_size=768, layers=8, seed=seed) for seed, name in enumerate("ab")]


def test_memory_returns_after_training_and_chat_with_one_model_after_another(home, recipe, wide_llamas):
    engine = Engine(home)
    process = psutil.Process()

    def train_and_chat(model, method) -> tuple[int, int]:
        loads = []
        run = engine.train(
            edit(recipe, {"model.source": str(model), "quantization.method": method, "training.max_steps": 2})
        )
        _until_idle(engine)
        answered = threading.Event()
        engine.reply(
            ReplyRequest(
                target=run.id,
                messages=[Message(role="user", content="Question 1?")],
                sampling=Sampling(temperature=0, max_new_tokens=4),
            ),
            lambda piece: loads.append(piece) if "as " in getattr(piece, "detail", "") else None,
            lambda error: answered.set(),
        )
        assert answered.wait(120)
        _until_idle(engine)
        assert not loads  # the base that was trained on answers
        loaded = process.memory_info().rss
        engine.unload()
        return loaded, process.memory_info().rss

    first, second = wide_llamas
    # Each kind once: what the libraries keep for themselves they have then.
    train_and_chat(first, "nf4")
    _, before = train_and_chat(second, "none")
    for model, method in ((first, "nf4"), (second, "none")):
        loaded, after = train_and_chat(model, method)
        assert after < before * 1.05
    weights = sum(file.stat().st_size for file in second.glob("*.safetensors"))
    assert after < loaded - weights / 2


def _until_idle(engine: Engine) -> None:
    while engine.is_busy:
        time.sleep(0.02)


@pytest.mark.parametrize("optimizer", ["paged_adamw_8bit", "paged_adamw_32bit"])
def test_what_the_optimizer_cannot_do_here_is_said(optimizer):
    import torch

    from workbench.engine.training.trainers.optimizer import optimizer_here

    name, notice = optimizer_here(optimizer)
    assert name == optimizer
    assert ("does not page" in notice) is not torch.cuda.is_available()
    assert optimizer_here("adamw_torch_fused") == ("adamw_torch_fused", "")


def test_without_bitsandbytes_another_optimizer_is_taken_and_named(monkeypatch):
    import sys

    from workbench.engine.training.trainers.optimizer import optimizer_here

    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    name, notice = optimizer_here("adamw_8bit")
    assert name == "adamw_torch_fused"
    assert "instead of adamw_8bit" in notice
