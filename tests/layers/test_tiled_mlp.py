"""MLPs in pieces: the loss and the gradients of whole ones, up to rounding, and no MLP is computed more often."""

from collections import Counter

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from workbench.layers.tiled_mlp import PIECES, TiledMlps, tiled_modules

KINDS = {
    "LlamaForCausalLM": {},
    "Gemma2ForCausalLM": {"head_dim": 16},
    "GPTNeoXForCausalLM": {},
}


def model_of(kind: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, kind).config_class(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=64, **KINDS[kind],
    )  # fmt: skip
    model = getattr(transformers, kind)(config)
    adapter = LoraConfig(target_modules="all-linear", r=4, lora_dropout=dropout, init_lora_weights=False)
    peft = get_peft_model(model, adapter)
    peft.enable_input_require_grads()
    return peft.train()


def step(model: nn.Module, length: int = 45) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of two records; the random numbers begin anew."""
    torch.manual_seed(1)
    ids = torch.arange(2 * length).remainder(64).reshape(2, length)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return loss.item(), gradients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [None, False, True], ids=["kept", "non-reentrant", "reentrant"])
def test_losses_and_gradients_are_those_of_whole_mlps(kind: str, checkpointing: bool | None) -> None:
    model = model_of(kind)
    if checkpointing is not None:
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": checkpointing})
    mlps = TiledMlps(model)
    assert (len(mlps.modules), mlps.differing()) == (3, "")
    # The last piece is shorter than the others; five tokens are no pieces.
    for length in (45, 5):
        loss, gradients = step(model, length)
        with mlps.active():
            tiled_loss, tiled = step(model, length)
        assert tiled_loss == pytest.approx(loss, rel=1e-6)
        assert len(tiled) == len(gradients) > 0
        for ours, whole in zip(tiled, gradients, strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)
    assert not [module for module in model.modules() if "forward" in module.__dict__]


def test_dropout_drops_the_same_numbers_when_a_piece_is_recomputed() -> None:
    """A step is then a function of its seed; where the backward pass dropped others, gradients would not be its own."""
    model = model_of("LlamaForCausalLM", dropout=0.5)
    mlps = TiledMlps(model)
    with mlps.active():
        (_, kept), (_, again) = step(model), step(model)
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    with mlps.active():
        _, recomputed = step(model)
    assert all(map(torch.equal, kept, again))
    assert all(map(torch.equal, kept, recomputed))
    # In each piece alone, the numbers of its forward pass: a change of B shows up as its gradient says.
    name, weight = next((n, p) for n, p in model.named_parameters() if "layers.2.mlp.down_proj.lora_B" in n)
    change = 1e-2 * torch.randn_like(weight)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    expected = (kept[trained.index(name)] * change).sum().item()
    losses = []
    for sign in (1, -1):
        weight.data.add_(sign * change)
        with mlps.active():
            losses.append(step(model)[0])
        weight.data.sub_(sign * change)
    assert (losses[0] - losses[1]) / 2 == pytest.approx(expected, rel=0.02)


def test_checkpointed_mlps_are_computed_as_often_as_without_it() -> None:
    """Each row once in the forward and once in the backward pass."""
    model, rows = model_of("LlamaForCausalLM"), Counter[str]()
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    for module in tiled_modules(model):
        module.up_proj.base_layer.register_forward_pre_hook(
            lambda layer, args: rows.update({"all": args[0].shape[:-1].numel(), "calls": 1})
        )
    step(model)
    whole = rows.copy()
    rows.clear()
    with TiledMlps(model).active():
        step(model)
    assert rows["all"] == whole["all"] == 3 * 2 * 2 * 45
    assert (whole["calls"], rows["calls"]) == (6, 6 * PIECES)


def test_what_is_no_plain_mlp_stays_whole() -> None:
    """Experts, and an MLP that adds the residual; and one whose tokens see each other is found out."""

    class PoolingMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(32, 32)

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return self.up(states - states.mean(-2, keepdim=True))

    mixture = transformers.Qwen3MoeConfig(
        hidden_size=32, moe_intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        num_experts=4, num_experts_per_tok=2, vocab_size=64,
    )  # fmt: skip
    bloom = transformers.BloomConfig(hidden_size=32, n_layer=1, n_head=2, vocab_size=64)
    for config in (mixture, bloom):
        assert tiled_modules(transformers.AutoModelForCausalLM.from_config(config)) == []
    model = model_of("LlamaForCausalLM").get_base_model()
    model.model.layers[0].mlp = PoolingMLP()
    assert TiledMlps(model).differing() == "PoolingMLP"
