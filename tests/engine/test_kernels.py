"""Fused kernels: refused where they cannot run, and put on and taken off a base without a trace.

No kernel runs without a GPU. What is tried here is everything around them, with the same operations in plain PyTorch;
the last test trains with Liger's own where there is a GPU.
"""

import copy
from importlib.util import find_spec
from types import MethodType, SimpleNamespace

import pytest
import torch

from tests.conftest import make_tiny_model
from tests.engine.fused_in_torch import Counted, as_if_installed, rms_norm
from tests.engine.runs_of_tiny import begin, curve, ended, events_of
from workbench.engine.daemon.engine import Engine
from workbench.engine.kernels import liger
from workbench.engine.kernels.fused import check_device, replace_forwards, verified_kernels
from workbench.engine.kernels.liger import FusedOperations, apply_kernels
from workbench.engine.model.load_base import load_base
from workbench.errors import WorkbenchError
from workbench.planning.queue import QueueRequest, RunRequest
from workbench.recipe import fused_kernels
from workbench.recipe.fused_kernels import PACKAGES, check_kernels
from workbench.recipe.sections.adapter import AdapterSection
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.recipe.text import edit
from workbench.runs.folder import all_runs

MODELS = {
    "llama": ("LlamaForCausalLM", {}, {"LlamaRMSNorm": 5, "LlamaMLP": 2}, "silu"),
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 16}, {"Qwen3RMSNorm": 9, "Qwen3MLP": 2}, "silu"),
    "olmo2": ("Olmo2ForCausalLM", {}, {"Olmo2RMSNorm": 9, "Olmo2MLP": 2}, "silu"),
    "phi3": ("Phi3ForCausalLM", {}, {"Phi3RMSNorm": 5, "Phi3MLP": 2}, "silu"),
    "gemma": ("GemmaForCausalLM", {"head_dim": 16}, {"GemmaRMSNorm": 5, "GemmaMLP": 2}, "gelu"),
    "gemma3": ("Gemma3ForCausalLM", {"head_dim": 16}, {"Gemma3RMSNorm": 13, "Gemma3MLP": 2}, "gelu"),
    # Its activation is the exact GELU, and Liger's is not.
    "exact gelu": ("LlamaForCausalLM", {"hidden_act": "gelu"}, {"LlamaRMSNorm": 5}, None),
    # Beside the usual it multiplies, which no kernel here does.
    "falcon h1": (
        "FalconH1ForCausalLM",
        {"head_dim": 16, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mlp_multipliers": [0.5, 2.0]},
        {"FalconH1RMSNorm": 5},
        None,
    ),
    "layer norms": ("GPTNeoXForCausalLM", {}, {}, None),
}


def loaded(home, tmp_path, name, dtype="float32", method="none"):
    import transformers

    kind, settings, *_ = MODELS[name]
    folder = make_tiny_model(tmp_path / "model", getattr(transformers, kind), **settings)
    section = QuantizationSection(method=method, compute_dtype=dtype)
    base = load_base(home, ModelSection(source=str(folder)), section, lambda progress: None, lambda: False)
    # What was never trained has norms of ones or zeros, which say little.
    torch.manual_seed(1)
    for parameter_name, parameter in base.model.named_parameters():
        if "norm" in parameter_name:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return base


@pytest.fixture
def home(tmp_path):
    from workbench.storage.paths import Home

    return Home(tmp_path / "home")


def said(model):
    """Loss, and the gradients of what is trained."""
    ids = torch.arange(24).view(2, 12) * 7 % 300
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def traces(model):
    return [name for name, module in model.named_modules() if "forward" in module.__dict__]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_the_same_with_kernels_on_and_after_them(home, tmp_path, name, dtype):
    *_, expected, multiplied = MODELS[name]
    base, counted = loaded(home, tmp_path, name, dtype), Counted()
    # PEFT takes no projection of a Mamba block.
    targets = ["q_proj", "gate_proj", "down_proj"] if name == "falcon h1" else "all-linear"
    model = base.attach_new(AdapterSection(r=4, lora_dropout=0.0, target_modules=targets))
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = traces(base.model)
    loss, gradients = said(model)

    counts, take_off = apply_kernels(counted.operations(), base.model)
    assert {kind: count for (_, kind), count in counts.items()} == expected
    assert len(traces(base.model)) == len(before) + sum(expected.values())
    counted.calls.clear()
    fused_loss, fused = said(model)
    assert counted.calls["norm"] == sum(count for (kind, _), count in counts.items() if kind == "norm")
    assert counted.calls["silu"] + counted.calls["gelu"] == (counted.calls[multiplied] if multiplied else 0)
    assert (counted.calls[multiplied] if multiplied else 2) == 2
    # The operations are PyTorch's own, and of the casts the one was found that the model makes.
    assert torch.equal(fused_loss, loss) or (dtype == "float32" and torch.allclose(fused_loss, loss, rtol=1e-6))
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    for parameter_name, gradient in gradients.items():
        scale = gradient.float().abs().max()
        assert (fused[parameter_name] - gradient).float().abs().max() <= tolerance * scale, parameter_name

    take_off()
    assert traces(base.model) == before
    counted.calls.clear()
    again, same = said(model)
    assert torch.equal(again, loss)
    assert all(torch.equal(same[key], value) for key, value in gradients.items())
    assert not counted.calls


def test_an_adapter_inside_of_an_mlp_still_counts(home, tmp_path):
    """The kernel multiplies what the adapted projections say, and their adapters learn."""
    base = loaded(home, tmp_path, "llama")
    model = base.attach_new(AdapterSection(r=4, lora_dropout=0.0, target_modules=["gate_proj", "down_proj"]))
    apply_kernels(Counted().operations(), base.model)
    loss, gradients = said(model)
    assert all(gradient.abs().max() > 0 for name, gradient in gradients.items() if "lora_B" in name)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.5)
    assert not torch.equal(said(model)[0], loss)


def test_whole_modules_that_are_trained_get_kernels_too_and_copies_are_their_own(home, tmp_path):
    base = loaded(home, tmp_path, "llama")
    model = base.attach_new(AdapterSection(r=4, lora_dropout=0.0, modules_to_save=["norm"]))
    counts, _ = apply_kernels(Counted().operations(), base.model)
    # PEFT takes the name for an ending, so that each is there twice: as it was, and as it is trained.
    assert counts["norm", "LlamaRMSNorm"] == 10
    _, gradients = said(model)
    assert any("norm" in name and gradient.abs().max() > 0 for name, gradient in gradients.items())
    norm = base.model.model.layers[0].input_layernorm
    twin = copy.deepcopy(norm)
    twin.weight.data.zero_()
    states = torch.ones(1, 3, 64)
    assert twin(states).abs().max() == 0
    assert norm(states).abs().max() > 0


def test_four_bit_weights_are_neither_used_nor_packed_by_the_trial(home, tmp_path):
    base = loaded(home, tmp_path, "llama", method="nf4")
    base.attach_new(AdapterSection(r=4))
    counts, _ = apply_kernels(Counted().operations(), base.model)
    assert counts["MLP", "LlamaMLP"] == 2
    assert base.is_unchanged


def test_a_kernel_that_fails_leaves_the_model_as_it_was(home, tmp_path, monkeypatch):
    base = loaded(home, tmp_path, "llama")

    def fail(*_):
        raise RuntimeError("no such instruction")

    broken = FusedOperations(rms_norm, fail, fail)
    monkeypatch.setattr(liger, "liger_operations", lambda: broken)
    with pytest.raises(WorkbenchError) as caught:
        base.apply_fused_kernels("liger")
    assert caught.value.message == "The Liger kernels do not run here: RuntimeError: no such instruction."
    assert not traces(base.model)


def test_a_kernel_with_other_numbers_is_not_put_on(home, tmp_path):
    base = loaded(home, tmp_path, "llama")
    off = FusedOperations(
        lambda *given: rms_norm(*given) * 1.001, lambda gate, up: gate * up, lambda gate, up: gate.relu() * up
    )
    counts, _ = apply_kernels(off, base.model)
    assert not counts
    assert not traces(base.model)


@pytest.fixture
def in_torch(monkeypatch):
    return as_if_installed(monkeypatch)


@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "no checkpointing"])
def test_a_run_has_the_same_losses_tells_its_kernels_and_leaves_none(home, recipe, in_torch, checkpointing):
    recipe = edit(
        recipe,
        {
            "training.max_steps": 3,
            "training.gradient_checkpointing": checkpointing,
            "quantization.compute_dtype": "float32",
            "data.eval_fraction": 0.2,
        },
    )
    plain, thread = begin(home, recipe)
    ended(thread)
    assert not in_torch.calls
    fused, thread = begin(home, edit(recipe, {"training.kernels": "liger"}))
    ended(thread)
    assert in_torch.calls["norm"] > 3 * 5
    assert curve(fused) == pytest.approx(curve(plain), rel=1e-5)
    told = [event["kernels"] for event in events_of(fused, "phase") if event.get("kernels")]
    assert told == ["Liger kernels: 5 norms (LlamaRMSNorm), 2 MLPs (LlamaMLP)"]
    assert not [event for event in events_of(plain, "phase") if event.get("kernels")]
    assert not traces(thread.base.model)
    assert thread.base.is_unchanged


def test_a_model_without_such_layers_trains_and_the_journal_says_so(home, recipe, in_torch, tmp_path):
    from transformers import GPTNeoXForCausalLM

    folder = make_tiny_model(tmp_path / "neox", GPTNeoXForCausalLM)
    recipe = edit(recipe, {"model.source": str(folder), "training.max_steps": 1, "training.kernels": "liger"})
    run, thread = begin(home, recipe)
    ended(thread)
    (warning,) = [event for event in events_of(run, "warning") if event.get("kind") == "kernels"]
    assert "no layer of this model is supported" in warning["message"]


@pytest.mark.parametrize("kernels", PACKAGES)
def test_what_is_not_installed_is_refused_before_there_is_a_run(home, recipe, monkeypatch, kernels):
    monkeypatch.setattr(fused_kernels, "find_spec", lambda name: None)
    engine, wanted = Engine(home), edit(recipe, {"training.kernels": kernels})
    package = PACKAGES[kernels][0]
    for ask in (
        lambda: engine.train(wanted),
        lambda: engine.change_queue(QueueRequest(action="add", runs=[RunRequest(recipe=wanted.as_dict())])),
    ):
        with pytest.raises(WorkbenchError) as caught:
            ask()
        assert caught.value.message == f"training.kernels is {kernels}, and {package} is not installed."
        assert f"pip install {package}" in caught.value.cure
    assert not all_runs(home)
    run, thread = begin(home, wanted)
    thread.join(120)
    assert thread.error.kind == "kernels"
    assert not [event for event in events_of(run, "phase") if event["phase"] == "loading"]


def test_the_hubs_kernels_are_refused_where_it_may_not_be_asked(monkeypatch):
    monkeypatch.setattr(fused_kernels, "find_spec", lambda name: name)
    check_kernels("hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WorkbenchError, match="HF_HUB_OFFLINE is set"):
        check_kernels("hub")
    check_kernels("liger")
    check_kernels("none")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("kernels", PACKAGES)
def test_without_a_gpu_a_run_ends_before_its_model_is_loaded(home, recipe, monkeypatch, kernels):
    monkeypatch.setattr(fused_kernels, "find_spec", lambda name: name)
    check_device("none")
    run, thread = begin(home, edit(recipe, {"training.kernels": kernels}))
    thread.join(120)
    assert "which needs a GPU, and PyTorch finds none" in thread.error.message
    assert "Set training.kernels to none" in thread.error.cure
    told = [event["detail"] for event in events_of(run, "phase") if event["phase"] == "loading"]
    assert set(told) <= {"importing libraries"}


class _FromHub(torch.nn.Module):
    """A kernel of the hub: a forward, which is put on layers of another class."""

    def forward(self, hidden_states):
        return rms_norm(hidden_states, self.weight, self.variance_epsilon, 0.0, "llama")


def test_what_the_hub_replaces_is_counted_and_undone(home, tmp_path):
    """As ``kernelize`` does it: a forward on each layer, its own where there is no kernel."""
    base, rotary = loaded(home, tmp_path, "llama"), torch.nn.Identity()
    base.attach_new(AdapterSection(r=4, lora_dropout=0.0))
    first = base.model.model.layers[0].self_attn
    # The functions that transformers ties to a module are none of its children.
    first.__dict__["_kernel_funcs"] = {"rotary": rotary}
    loss, _ = said(base.peft)

    def kernelize():
        for module in base.model.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.forward = MethodType(_FromHub.forward, module)
            elif type(module).__name__ == "LlamaMLP":
                module.forward = MethodType(type(module).forward, module)
        rotary.forward = MethodType(torch.nn.Identity.forward, rotary)

    counts, take_off = replace_forwards(kernelize, base.model)
    assert counts == {("layer", "LlamaRMSNorm"): 5}
    assert torch.allclose(said(base.peft)[0], loss, rtol=1e-6)
    take_off()
    assert not traces(base.model)
    assert "forward" not in rotary.__dict__
    assert torch.equal(said(base.peft)[0], loss)

    def fail():
        kernelize()
        raise OSError("no network")

    with pytest.raises(WorkbenchError, match="The hub kernels are not available: OSError: no network"):
        replace_forwards(fail, base.model)
    assert not traces(base.model)


def test_only_kernels_that_the_hub_vouches_for_are_taken_unasked():
    known, other = (SimpleNamespace(_trust_remote_code=trusted) for trusted in (False, True))
    listed = SimpleNamespace(_trust_remote_code=["owner/name"])
    mapping = {
        "RMSNorm": {"cuda": {"training": known, "inference": known}},
        "Mixed": {"cuda": {"training": other, "inference": known}, "rocm": known},
        "Delta": {"cuda": other},
        "Listed": {"cuda": {"training": listed}},
    }
    kept, left = verified_kernels(mapping)
    assert kept == {
        "RMSNorm": mapping["RMSNorm"],
        "Mixed": {"cuda": {"inference": known}, "rocm": known},
    }
    assert left == {"Mixed", "Delta", "Listed"}


@pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("liger_kernel") is None,
    reason="needs a CUDA GPU and liger-kernel: pip install liger-kernel",
)
def test_ligers_own_kernels_train_alike_on_a_gpu(home, recipe):
    recipe = edit(recipe, {"training.max_steps": 2, "quantization.method": "none"})
    plain, thread = begin(home, recipe)
    ended(thread)
    fused, thread = begin(home, edit(recipe, {"training.kernels": "liger"}))
    ended(thread)
    (told,) = [event["kernels"] for event in events_of(fused, "phase") if event.get("kernels")]
    assert told == "Liger kernels: 5 norms (LlamaRMSNorm), 2 MLPs (LlamaMLP)"
    # bfloat16 has three digits.
    assert curve(fused) == pytest.approx(curve(plain), rel=0.02)
    assert not traces(thread.base.model)
