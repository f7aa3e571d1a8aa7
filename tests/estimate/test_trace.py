"""Followed steps: against real steps on the CPU, against themselves at other sizes, and against published peaks."""

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.estimate.architectures import TINY
from workbench.errors import WorkbenchError
from workbench.estimate import Setup, price
from workbench.estimate.step import Step, plan_step
from workbench.estimate.trace.allocator import MIB, CachingAllocator
from workbench.estimate.trace.monomial import Probe
from workbench.estimate.trace.store import SHIPPED, TraceStore, key_of
from workbench.estimate.trace.timeline import Timeline
from workbench.models.build import build_skeleton
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "measurements" / "rtx4080-published.csv"
sys.path.insert(0, str(ROOT / "bench"))

SMALL = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 2048,
}


def recipe_of(**changes: Any) -> ResolvedRecipe:
    defaults = {
        "quantization.method": "none",
        "training.per_device_train_batch_size": 3,
        "training.gradient_accumulation_steps": 2,
        "data.max_length": 96,
        "adapter.r": 8,
    }
    return edit(resolved(Recipe()), defaults | changes)


@pytest.fixture
def cpu_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's flash attention where tensors have data."""
    import torch

    from workbench.estimate.trace import kernels

    without_data = kernels.attention

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
        if query.device.type == "meta":
            return without_data(module, query, key, value, mask, scaling)
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return flash(query, key, value, 0.0, True, scale=scaling)[0].transpose(1, 2).contiguous(), None

    monkeypatch.setattr(kernels, "attention", attention)


def real_peak(step: Step, recipe: Recipe) -> int:
    """Highest number of bytes that a real step on the CPU holds above its weights."""
    import peft
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from workbench.estimate.trace import on_meta, run
    from workbench.estimate.trace.kernels import cuda_like

    skeleton = build_skeleton(SMALL)
    real = AutoModelForCausalLM.from_config(CONFIG_MAPPING["llama"].from_dict(dict(SMALL)), dtype=torch.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_meta, "meta_model", lambda _: real)
        patch.setattr(peft, "get_peft_model", _attached_for_real)
        model = on_meta.training_model(skeleton, recipe, step, recipe.adapter.r)
    recorder = run.StepRecorder("cpu")
    recorder.ignore(on_meta.resting_tensors(model))
    sizes = Probe(step.batch, step.length, recipe.adapter.r)
    with cuda_like(), recorder:
        for _ in range(2 if step.accumulates else 1):
            run._micro_batch(model, step, sizes, recorder, device="cpu")
    now = highest = 0
    alive: dict[int, int] = {}
    for number, size, label in recorder.events:
        taken = min(step.tokens, 4096) * 32768 * 2 if size and label == run.TILE else size
        now += taken - alive.pop(number, 0)
        if taken:
            alive[number] = taken
        highest = max(highest, now)
    return highest


def _attached_for_real(model: Any, config: Any, **_: Any) -> Any:
    from peft.mapping_func import get_peft_model

    return get_peft_model(model, config)


@pytest.mark.usefixtures("cpu_attention")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training.gradient_checkpointing": False},
        {"adapter.lora_dropout": 0.0, "adapter.target_modules": ["q_proj", "v_proj"]},
        {"training.gradient_accumulation_steps": 1},
        {"adapter.use_dora": True, "adapter.lora_dropout": 0.0},
    ],
    ids=str,
)
def test_real_steps_on_the_cpu(changes: dict[str, Any]) -> None:
    from workbench.estimate.trace.run import trace_step

    recipe = recipe_of(**changes)
    step = plan_step(Setup.of(recipe))
    _, terms = trace_step(build_skeleton(SMALL), recipe, step).highest(step.batch, step.length, recipe.adapter.r)
    assert sum(terms.values()) == pytest.approx(real_peak(step, recipe), rel=0.01)


def test_sizes_are_read_as_products() -> None:
    probe = Probe.for_extents({576, 1536, 103 * 2, 49152})
    assert probe.batch != 103
    monomial = probe.factor(2 * 576 * probe.batch * probe.length**2 * probe.rank)
    assert monomial == (1152, (1, 2, 1))
    assert monomial.at(4, 100, 8) == 1152 * 4 * 100**2 * 8


def test_allocator_keeps_splits_and_merges() -> None:
    allocator = CachingAllocator()
    allocator.allocate("small", 100)
    assert (allocator.allocated, allocator.reserved) == (512, 2 * MIB)
    allocator.allocate("medium", 3 * MIB)
    assert allocator.reserved == 22 * MIB
    # What is left of the 20 MiB segment holds 15, and then no 3 any more.
    allocator.allocate("large", 15 * MIB)
    assert allocator.reserved == 22 * MIB
    allocator.allocate("another", 3 * MIB)
    assert allocator.reserved == 42 * MIB
    for name in ("medium", "large", "another", "small"):
        allocator.release(name)
    assert allocator.allocated == 0
    # Freed neighbors are one block again; segments are kept.
    allocator.allocate("whole", 20 * MIB)
    assert allocator.reserved == 42 * MIB
    allocator.allocate("own", 31 * MIB)
    assert allocator.reserved == 42 * MIB + 32 * MIB
    # The last MiB of its segment is too little to split off, so it counts as given out.
    assert allocator.peak_allocated == 52 * MIB


def test_a_timeline_survives_json_and_old_ones_are_refused() -> None:
    from workbench.estimate.trace.run import trace_step

    recipe = recipe_of()
    timeline = trace_step(build_skeleton(SMALL), recipe, plan_step(Setup.of(recipe)))
    data = json.loads(json.dumps(timeline.as_json()))
    assert Timeline.from_json(data) == timeline
    with pytest.raises(ValueError, match="format"):
        Timeline.from_json({**data, "format": 0})


FOLLOWED = ("llama-tied", "qwen3", "gemma2", "gemma3", "gpt2", "opt", "phi3", "falcon", "bloom", "mixtral", "qwen3_moe")


# How weights are stored changes their layers, of which there are linear ones, those of GPT-2, and experts.
@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "nf4") for name in FOLLOWED), *product(("gemma3", "gpt2", "qwen3_moe"), ("none", "int8"))],
)
def test_architectures_that_can_be_followed(name: str, method: str) -> None:
    from workbench.estimate.trace.run import trace_step

    recipe = recipe_of(**{"quantization.method": method, "adapter.lora_dropout": 0.0})
    step = plan_step(Setup.of(recipe))
    timeline = trace_step(build_skeleton(TINY[name]), recipe, step)
    _, small = timeline.highest(1, 64, 8)
    _, large = timeline.highest(2, 128, 16)
    assert 0 < sum(small.values()) < sum(large.values())
    assert all(value >= 0 for value in (*small.values(), *large.values()))
    assert all(ratio >= 1 for _, ratio in timeline.overhead)


@pytest.mark.usefixtures("fresh_processes")
def test_a_store_makes_keeps_and_finds(tmp_path: Path) -> None:
    skeleton, recipe = build_skeleton(SMALL), recipe_of()
    store = TraceStore(tmp_path)
    before = price(skeleton, recipe, traced=store).peak
    assert before.method == "closed-form"
    timeline = store.trace(skeleton, recipe)
    after = price(skeleton, recipe, traced=store).peak
    assert after.method == "trace"
    assert after.allocated_bytes == sum(value for name, value in after.terms.items() if name != "cuda_context")
    assert TraceStore(tmp_path).find(skeleton, Setup.of(recipe).adapter, plan_step(Setup.of(recipe))) == timeline
    other = edit(recipe, {"training.per_device_train_batch_size": 7, "data.max_length": 300, "adapter.r": 64})
    assert price(skeleton, other, traced=TraceStore(tmp_path)).peak.method == "trace"


def test_what_cannot_be_followed_is_told(tmp_path: Path) -> None:
    store = TraceStore(tmp_path)
    with pytest.raises(WorkbenchError, match="float16"):
        store.trace(build_skeleton(SMALL), recipe_of(**{"quantization.compute_dtype": "float16"}))
    with pytest.raises(WorkbenchError, match="Mamba"):
        store.trace(build_skeleton(TINY["mamba"]), recipe_of(**{"adapter.target_modules": ["in_proj"]}))
    assert list(tmp_path.iterdir()) == []


def test_keys_differ_where_the_step_does() -> None:
    skeleton, recipe = build_skeleton(SMALL), recipe_of()

    def key(**changes: Any) -> str:
        setup = Setup.of(edit(recipe, changes))
        return key_of(skeleton, setup.adapter, plan_step(setup))

    same = [{}, {"data.max_length": 64}, {"adapter.r": 64}, {"training.learning_rate": 0.1}, {"training.optim": "sgd"}]
    other = [
        {"adapter.use_dora": True},
        {"adapter.lora_dropout": 0.0},
        {"quantization.method": "nf4"},
        {"training.gradient_checkpointing": False},
        {"training.gradient_accumulation_steps": 1},
        {"adapter.target_modules": ["q_proj"]},
        {"quantization.compute_dtype": "float32"},
    ]
    assert len({key(**changes) for changes in same}) == 1
    assert len({key(**changes) for changes in (*other, {})}) == len(other) + 1


def test_the_shipped_timelines_are_what_is_followed_now() -> None:
    from workbench.estimate.trace.run import trace_step
    from workbench.estimate.trace.ship import shipped_recipes

    skeleton = catalog_skeleton("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert skeleton
    recipe = next(shipped_recipes(skeleton))
    step = plan_step(Setup.of(recipe))
    shipped = TraceStore().find(skeleton, Setup.of(recipe).adapter, step)
    if shipped is None:
        pytest.skip(f"{SHIPPED.name} was made with other versions of the libraries")
    assert trace_step(skeleton, recipe, step) == shipped


@pytest.mark.timeout(1800)
def test_published_peaks_within_two_percent() -> None:
    """Eleven measured peaks of another project's runs, with its step (``variant="plain"``)."""
    from accuracy import predicted_peaks

    errors = [
        followed.allocated_bytes / 2**30 / float(row["peak_allocated_gib"]) - 1
        for row, followed, _ in predicted_peaks(PUBLISHED)
    ]
    assert len(errors) == 11
    assert max(map(abs, errors)) < 0.02
    assert sum(map(abs, errors)) / len(errors) < 0.01


def test_the_closed_form_stays_near_the_shipped_timelines() -> None:
    from workbench.estimate.trace.ship import setup_of, shipped_recipes

    sizes = [(1, 512, 16), (4, 1024, 16), (2, 2048, 64), (8, 512, 8), (1, 8192, 16)]
    ratios: dict[tuple[str, int, int, int, int], float] = {}
    store = TraceStore()
    for entry in {entry.tree: entry for entry in catalog()}.values():
        skeleton = catalog_skeleton(entry.id)
        assert skeleton
        if entry.model_type in ("falcon_h1", "granitemoehybrid", "nemotron_h"):
            continue  # the formula does not know the blocks that Mamba's reference code keeps without its kernels
        for place, recipe in enumerate(shipped_recipes(skeleton)):
            setup = setup_of(skeleton, recipe)
            if store.find(skeleton, setup.adapter, plan_step(setup)) is None:
                continue
            for batch, length, rank in sizes:
                changes = {"training.per_device_train_batch_size": batch, "data.max_length": length, "adapter.r": rank}
                changed = edit(recipe, changes)
                followed = price(skeleton, changed).peak
                if followed.method == "trace":
                    formula = price(skeleton, changed, traced=lambda *_: None).peak
                    ratio = formula.allocated_bytes / followed.allocated_bytes - 1
                    ratios[(entry.id, place, batch, length, rank)] = ratio
    if not ratios:
        pytest.skip(f"{SHIPPED.name} was made with other versions of the libraries")
    assert sum(map(abs, ratios.values())) / len(ratios) < 0.06
    assert {run: ratio for run, ratio in ratios.items() if not -0.35 < ratio < 0.25} == {}
