"""Checkpoints in host memory: the numbers of a step without this, whatever happens between two steps."""

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.layers.host_checkpoints import HostCheckpoints, link_speed

LAYERS = 4


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=2, vocab_size=64
    )
    model = LlamaForCausalLM(config).train()
    model.requires_grad_(False)
    for layer in model.model.layers:
        layer.mlp.up_proj.weight.requires_grad_(True)
    return model


@pytest.fixture(params=["non-reentrant", "reentrant", "by name"])
def checkpointed(request: pytest.FixtureRequest, model: LlamaForCausalLM) -> Iterator[LlamaForCausalLM]:
    reentrant = {"use_reentrant": request.param == "reentrant"}
    model.activation_checkpointing_enable(reentrant)
    handles = []
    if request.param == "by name":
        # As models call their layers that name every argument.
        for layer in model.model.layers:
            handles.append(layer.register_forward_pre_hook(named, with_kwargs=True))
    yield model
    for handle in handles:
        handle.remove()
    model.activation_checkpointing_disable()


def named(_: object, args: tuple[torch.Tensor], kwargs: dict[str, object]) -> tuple[tuple[()], dict[str, object]]:
    return (), {"hidden_states": args[0], **kwargs}


def fail(*_: object) -> None:
    raise RuntimeError("out of memory")


def step(model: LlamaForCausalLM, length: int) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of one record."""
    ids = torch.arange(length).remainder(64).reshape(1, length)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return loss.item(), gradients


def test_losses_and_gradients_are_equal_to_the_bit(checkpointed: LlamaForCausalLM) -> None:
    host = HostCheckpoints(checkpointed)
    assert not host.is_used
    # A longer record needs larger buffers, a shorter one none.
    for length in (12, 30, 7):
        plain = step(checkpointed, length)
        with host.active():
            loss, gradients = step(checkpointed, length)
        assert loss == plain[0]
        assert len(gradients) == LAYERS
        assert all(map(torch.equal, gradients, plain[1]))
    assert host.is_used
    # All of them are free again, and as large as the longest record wanted them.
    assert [buffer.numel() for buffer in host.buffers] == [30 * 32 * 4] * LAYERS
    assert link_speed(torch.device("cpu"), 1 << 16) > 0


def test_a_step_that_fails_leaves_nothing_behind(checkpointed: LlamaForCausalLM) -> None:
    host, last = HostCheckpoints(checkpointed), checkpointed.model.layers[-1]
    expected = step(checkpointed, 12)
    handle = last.mlp.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"), host.active():
        step(checkpointed, 12)
    handle.remove()
    assert len(host.buffers) <= LAYERS
    with host.active():
        again = step(checkpointed, 12)
    assert again[0] == expected[0]
    assert all(map(torch.equal, again[1], expected[1]))
    # Outside, layers compute as ever.
    before = [buffer.data_ptr() for buffer in host.buffers]
    assert step(checkpointed, 12)[0] == expected[0]
    assert [buffer.data_ptr() for buffer in host.buffers] == before
