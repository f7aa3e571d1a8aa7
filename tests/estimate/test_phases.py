"""The peaks of loading and of evaluation: against real ones on the CPU, and in what is judged to fit."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.estimate.test_trace import SMALL, cpu_attention, highest_of, real_model, recipe_of
from workbench.estimate import Setup, price
from workbench.estimate.fit import fit_of
from workbench.estimate.footprint import Storage, rounded
from workbench.estimate.loading import loading_peak
from workbench.estimate.peak import REPLY_TOKENS, Peak, PhasePeak, on_device
from workbench.estimate.step import plan_step
from workbench.estimate.trace.monomial import Probe
from workbench.machine.device import Device
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.build import build_skeleton
from workbench.planning.start_checks import judge

__all__ = ["cpu_attention"]
GIB = 2**30


def test_a_real_load_on_the_cpu(tmp_path: Path) -> None:
    """From several files; the storages of all tensors are followed while transformers loads and quantizes them."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

    from workbench.estimate.trace.recorder import StorageRecorder

    torch.manual_seed(0)
    config = {name: value for name, value in SMALL.items() if name != "model_type"}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**config), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="400KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    recorder = StorageRecorder("cpu")
    with recorder:
        # Without quantization, transformers loads in threads, where nothing is followed.
        loaded = AutoModelForCausalLM.from_pretrained(
            tmp_path, dtype=torch.bfloat16, quantization_config=quantization, device_map={"": "cpu"}
        )
    assert loaded.num_parameters() == model.num_parameters()
    storage = Storage("nf4", double_quant=True, dtype="bfloat16")
    predicted = loading_peak(build_skeleton(SMALL), storage, storage)
    blocks = [(number, rounded(size), label) for number, size, label in recorder.events]
    assert predicted == pytest.approx(highest_of(blocks, plan_step(Setup.of(recipe_of()))), rel=0.01)


@pytest.mark.usefixtures("cpu_attention")
def test_a_real_evaluation_on_the_cpu() -> None:
    """The loss of a held-out batch, and a reply that transformers generates."""
    import torch

    from workbench.estimate.trace.kernels import cuda_like
    from workbench.estimate.trace.micro_batch import StepRecorder, held_out_loss
    from workbench.estimate.trace.on_meta import resting_tensors
    from workbench.estimate.trace.run import trace_step

    recipe = recipe_of()
    step = plan_step(Setup.of(recipe))
    evaluation = trace_step(build_skeleton(SMALL), recipe, step).evaluation
    assert evaluation is not None
    assert evaluation.cache is not None
    model = real_model(step, recipe).eval()
    recorder = StepRecorder("cpu")
    recorder.ignore(resting_tensors(model))
    sizes = Probe(step.batch, step.length, recipe.adapter.r)
    with cuda_like(), recorder:
        held_out_loss(model, step, sizes, recorder, nullcontext(), device="cpu")
    assert evaluation.bytes_at(step.batch, step.length, recipe.adapter.r, (), 0) == pytest.approx(
        highest_of(recorder.events, step), rel=0.01
    )
    recorder = StepRecorder("cpu")
    recorder.ignore(resting_tensors(model))
    ids = torch.randint(1, 2048, (1, 600))
    with cuda_like(), recorder, torch.no_grad():
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=REPLY_TOKENS,
            min_new_tokens=REPLY_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
    reply = replace(evaluation, losses=()).bytes_at(1, 600, recipe.adapter.r, (), REPLY_TOKENS)
    assert reply == pytest.approx(highest_of(recorder.events, step), rel=0.01)


def test_the_device_must_hold_the_highest_peak() -> None:
    terms = {"cuda_context": GIB, "adapters": 0}
    training = Peak(4 * GIB, 5 * GIB, terms, "loss", "trace")
    assert (training.highest_phase, training.device_bytes) == ("training", 6 * GIB)
    peak = replace(training, others={"loading": PhasePeak(7 * GIB, 8 * GIB), "evaluation": PhasePeak(GIB, GIB)})
    assert (peak.highest_phase, peak.device_bytes, peak.least_bytes) == ("loading", 9 * GIB, 8 * GIB)
    assert [fit_of(peak, size * GIB) for size in (10, 8, 7)] == ["fits", "tight", "does not fit"]
    assert on_device(Device("cpu"), peak).device_bytes == 7 * GIB
    # A copy of the adapter is there after loading only.
    more = peak.with_more("adapters", 10 * GIB)
    assert {phase: other.reserved_bytes // GIB for phase, other in more.phases.items()} == {
        "training": 15, "loading": 8, "evaluation": 11,
    }  # fmt: skip


def test_all_that_judges_a_recipe_knows_all_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a load that needs more than a step, a run does not fit where the step alone would."""
    from workbench.estimate import pricing

    skeleton, recipe = build_skeleton(SMALL), recipe_of()
    peak = price(skeleton, recipe).peak
    assert set(peak.phases) == {"training", "loading", "evaluation"}
    assert all(0 < phase.allocated_bytes <= phase.reserved_bytes for phase in peak.phases.values())
    assert peak.highest_phase == "training"
    budget = MemoryBudget(free_bytes=peak.device_bytes + GIB)

    def fits() -> list[Any]:
        verdict = judge(skeleton, recipe, budget)
        priced = price(skeleton, recipe, budget)
        assert verdict is not None
        return [priced.fit, verdict.fit, priced.largest.batch is not None]

    assert fits() == ["fits", "fits", True]
    monkeypatch.setattr(pricing, "loading_peak", lambda *_: peak.device_bytes + 2 * GIB)
    assert fits() == ["does not fit", "does not fit", False]


def test_workspaces_follow_the_generation_of_the_gpu() -> None:
    recipe = recipe_of()
    older, hopper = (plan_step(Setup.of(recipe), Device(compute_capability=major)) for major in (8, 9))
    assert (older.workspace, hopper.workspace) == (8_519_680, 32 * 2**20)
    skeleton = build_skeleton(SMALL)
    peaks = [price(skeleton, recipe, MemoryBudget(Device(compute_capability=major))).peak for major in (8, 9)]
    more = peaks[1].allocated_bytes - peaks[0].allocated_bytes
    assert more == peaks[1].terms["workspace"] - peaks[0].terms["workspace"] == 2 * (32 * 2**20 - 8_519_680)
