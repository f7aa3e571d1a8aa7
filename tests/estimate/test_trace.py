"""Followed steps: against real steps on the CPU, against themselves at other sizes, and against published peaks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.estimate.architectures import TINY
from workbench.errors import WorkbenchError
from workbench.estimate import Setup, price
from workbench.estimate.footprint import Storage
from workbench.estimate.loading import loading_events, moving_events
from workbench.estimate.step import Step, plan_step
from workbench.estimate.trace.allocator import MIB, CachingAllocator
from workbench.estimate.trace.lengths import extents_of, needs_check
from workbench.estimate.trace.monomial import Monomial, Probe
from workbench.estimate.trace.store import SHIPPED, TraceStore, key_of
from workbench.estimate.trace.tape import CARRIED, TILE_WIDTH, Tape
from workbench.estimate.trace.timeline import Timeline
from workbench.layers.host_checkpoints import HostCheckpoints
from workbench.machine.device import Device
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.build import build_skeleton
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

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
        is_prompt = query.shape[2] == key.shape[2]
        return flash(query, key, value, 0.0, is_prompt, scale=scaling)[0].transpose(1, 2).contiguous(), None

    monkeypatch.setattr(kernels, "attention", attention)


def real_model(step: Step, recipe: Recipe, config: dict[str, Any] = SMALL) -> Any:
    """The model of a step with data, on the CPU."""
    import peft
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from workbench.estimate.trace import on_meta

    skeleton = build_skeleton(config)
    built = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    real = AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_meta, "meta_model", lambda _: real)
        patch.setattr(peft, "get_peft_model", _attached_for_real)
        return on_meta.training_model(skeleton, recipe, step, recipe.adapter.r)


def real_peak(step: Step, recipe: Recipe, config: dict[str, Any] = SMALL) -> int:
    """Highest number of bytes that a real step on the CPU holds above its weights."""
    import torch

    from workbench.estimate.trace.kernels import cuda_like
    from workbench.estimate.trace.micro_batch import StepRecorder, run_micro_batch
    from workbench.estimate.trace.on_meta import resting_tensors
    from workbench.estimate.trace.run import layers_as_computed

    model = real_model(step, recipe, config)
    recorder = StepRecorder("cpu")
    recorder.ignore(resting_tensors(model))
    sizes = Probe(step.batch, step.length, recipe.adapter.r)
    host = HostCheckpoints(model)
    if step.offloads:
        with cuda_like(), layers_as_computed(model, step, nullcontext(), host):
            run_micro_batch(model, step, sizes, StepRecorder("cpu"), nullcontext(), device="cpu")
        model.zero_grad()
        # A step finds them there.
        recorder.ignore(host.buffers)
    with asked_for_autocast(step), cuda_like(), recorder, layers_as_computed(model, step, nullcontext(), host):
        for _ in range(2 if step.accumulates else 1):
            autocast = torch.autocast("cpu", getattr(torch, step.autocast)) if step.autocast else nullcontext()
            recorder.held = run_micro_batch(model, step, sizes, recorder, autocast, device="cpu")
    return highest_of(recorder.events, step)


def highest_of(events: list[tuple[int, int, str]], step: Step) -> int:
    """The most bytes that recorded events hold at once."""
    from workbench.estimate.trace.points import TILE

    now = highest = 0
    alive: dict[int, int] = {}
    for number, size, label in events:
        taken = min(step.tokens, 4096) * 32768 * 2 if size and label == TILE else size
        now += taken - alive.pop(number, 0)
        if taken:
            alive[number] = taken
        highest = max(highest, now)
    return highest


@contextmanager
def asked_for_autocast(step: Step) -> Iterator[None]:
    """PyTorch's own autocast on a CPU, which casts in these layers as on a GPU; PEFT asks whether a GPU's is on."""
    import torch
    from torch.utils.checkpoint import DefaultDeviceType

    before = DefaultDeviceType.get_device_type()
    DefaultDeviceType.set_device_type("cpu")
    torch.set_autocast_enabled("cuda", bool(step.autocast))
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        DefaultDeviceType.set_device_type(before)


def _attached_for_real(model: Any, config: Any, **_: Any) -> Any:
    from peft.mapping_func import get_peft_model

    return get_peft_model(model, config)


@pytest.mark.usefixtures("cpu_attention")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training.gradient_checkpointing": False},
        {"training.gradient_checkpointing": "offload"},
        {"training.gradient_checkpointing": "offload", "training.tiled_mlp": True, "adapter.lora_dropout": 0.0},
        {"adapter.lora_dropout": 0.0, "adapter.target_modules": ["q_proj", "v_proj"]},
        {"training.gradient_accumulation_steps": 1},
        {"adapter.use_dora": True, "adapter.lora_dropout": 0.0},
        {"model.attn_implementation": "eager", "training.gradient_checkpointing": False},
    ],
    ids=str,
)
def test_real_steps_on_the_cpu(changes: dict[str, Any]) -> None:
    from workbench.estimate.trace.run import trace_step

    recipe = recipe_of(**changes)
    step = plan_step(Setup.of(recipe))
    _, terms = trace_step(build_skeleton(SMALL), recipe, step).highest(step.batch, step.length, recipe.adapter.r)
    assert sum(terms.values()) == pytest.approx(real_peak(step, recipe), rel=0.01)


@pytest.mark.usefixtures("cpu_attention")
@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({}, {}),
        ({"training.gradient_checkpointing": False}, {}),
        ({"adapter.target_modules": ["q_proj", "v_proj"], "adapter.lora_dropout": 0.0}, {"keeps_outputs": True}),
        ({}, {"autocast": "", "keeps_outputs": True}),
    ],
    ids=str,
)
def test_real_steps_as_trainer_runs_them(changes: dict[str, Any], differs: dict[str, Any]) -> None:
    """Autocast with float32 adapters, all logits, outputs dropped before the backward pass or kept."""
    from workbench.estimate.trace.run import trace_step

    recipe = recipe_of(**{"training.gradient_accumulation_steps": 1} | changes)
    step = replace(plan_step(Setup.of(recipe), variant="plain"), **differs)
    _, terms = trace_step(build_skeleton(SMALL), recipe, step).highest(step.batch, step.length, recipe.adapter.r)
    assert sum(terms.values()) == pytest.approx(real_peak(step, recipe), rel=0.01)
    # Without the outputs, the logits are gone when the loss's gradient is there.
    assert terms["loss"] > 0
    assert ("logits" in terms) == step.keeps_outputs


def test_autocast_casts_as_torch_does_on_a_gpu() -> None:
    """PyTorch's own autocast for CUDA, on tensors that only say that they are there."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn import functional

    from workbench.estimate.trace.autocast import CudaAutocast

    def of_one(name: str) -> Any:
        return lambda x, y: getattr(torch.Tensor, name)(x)

    def of_two(name: str) -> Any:
        return getattr(torch.Tensor, name)

    functions = {
        **{name: of_one(name) for name in ("rsqrt", "exp", "log", "sum", "mean", "prod", "norm", "sigmoid", "tan")},
        **{name: of_two(name) for name in ("matmul", "__matmul__", "add", "mul", "__pow__", "dist")},
        "linear": functional.linear,
        "rms_norm": lambda x, y: functional.rms_norm(x, (8,)),
        "layer_norm": lambda x, y: functional.layer_norm(x, (8,)),
        "softmax": lambda x, y: functional.softmax(x, -1),
        "log_softmax": lambda x, y: x.log_softmax(-1),
        "cumsum": lambda x, y: x.cumsum(-1),
        "softplus": lambda x, y: functional.softplus(x),
        "silu": lambda x, y: functional.silu(x),
        "normalize": lambda x, y: functional.normalize(x),
        "vector_norm": lambda x, y: torch.linalg.vector_norm(x),
        "einsum": lambda x, y: torch.einsum("ij,jk->ik", x, y),
        "cross_entropy": lambda x, y: functional.cross_entropy(x, torch.zeros(8, dtype=torch.long, device=x.device)),
        "mse_loss": functional.mse_loss,
        "addcmul": lambda x, y: torch.addcmul(x, x, y),
        "one over": lambda x, y: 1 / x,
    }
    torch._C._ensureCUDADeviceGuardSet()
    for name, function in functions.items():
        for dtype in (torch.float32, torch.float16):
            torch.set_autocast_enabled("cuda", True)
            torch.set_autocast_dtype("cuda", torch.float16)
            try:
                with FakeTensorMode():
                    theirs = function(*(torch.empty(8, 8, dtype=d, device="cuda") for d in (dtype, torch.float32)))
            finally:
                torch.set_autocast_enabled("cuda", False)
            with CudaAutocast(torch.float16):
                ours = function(*(torch.empty(8, 8, dtype=d, device="meta") for d in (dtype, torch.float32)))
            assert (name, dtype, ours.dtype) == (name, dtype, theirs.dtype)


def test_sizes_are_read_as_products() -> None:
    probe = Probe.for_extents({576, 1536, 103 * 2, 49152})
    assert probe.batch != 103
    monomial = probe.factor(2 * 576 * probe.batch * probe.length**2 * probe.rank)
    assert monomial == (1152, (1, 2, 1))
    assert monomial.at((4, 100, 8)) == 1152 * 4 * 100**2 * 8


def test_sizes_in_whole_chunks() -> None:
    extents = extents_of({"text_config": {"mamba_chunk_size": 256, "mamba_d_conv": 4}, "conv_kernel": None})
    assert [extent.at(1000) for extent in extents] == [4, 5, 1003]
    probe = Probe.for_extents({576, 1536, 49152}, extents)
    length, chunks = probe.length, -(-probe.length // 256)
    assert probe.factor(24 * probe.batch * length * chunks) == (24, (1, 1, 0, 1, 0, 0))
    assert probe.factor(24 * (chunks + 1) ** 2 * (length + 3)) == (24, (0, 0, 0, 0, 2, 1))
    assert not needs_check({"layer_types": ["full_attention", "sliding_attention"], "hidden_size": 64})
    assert needs_check({"layer_types": ["linear_attention", "full_attention"]})


HYBRID = {
    "model_type": "granitemoehybrid",
    "hidden_size": 64,
    "shared_intermediate_size": 96,
    "num_hidden_layers": 3,
    "layer_types": ["mamba", "attention", "mamba"],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "vocab_size": 320,
    "mamba_chunk_size": 16,
    "mamba_d_state": 16,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_conv": 4,
}


@pytest.mark.usefixtures("cpu_attention")
def test_real_steps_of_layers_that_scan_in_chunks() -> None:
    """At three lengths, none of them a multiple of a chunk."""
    from workbench.estimate.trace.run import trace_step

    changes = {"training.gradient_checkpointing": False, "adapter.lora_dropout": 0.0}
    timelines = []
    for length in (75, 100, 203):
        recipe = recipe_of(**changes, **{"data.max_length": length, "training.gradient_accumulation_steps": 1})
        step = plan_step(Setup.of(recipe))
        timelines = timelines or [trace_step(build_skeleton(HYBRID), recipe, step)]
        _, terms = timelines[0].highest(step.batch, length, recipe.adapter.r)
        assert sum(terms.values()) == pytest.approx(real_peak(step, recipe, HYBRID), rel=0.01)
    assert Timeline.from_json(json.loads(json.dumps(timelines[0].as_json()))) == timelines[0]


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
    with pytest.raises(WorkbenchError, match="Mamba"):
        store.trace(build_skeleton(TINY["mamba"]), recipe_of(**{"adapter.target_modules": ["in_proj"]}))
    assert list(tmp_path.iterdir()) == []


def test_float16_is_followed_and_replayed(tmp_path: Path) -> None:
    """Under autocast, on a card without bfloat16; a replay at the recipe's own sizes, whatever was followed first."""
    from workbench.estimate.trace.run import trace_step

    budget = MemoryBudget(Device(bfloat16=False))
    skeleton, recipe = build_skeleton(SMALL), recipe_of(**{"adapter.lora_dropout": 0.0})
    large = edit(recipe, {"training.per_device_train_batch_size": 16, "data.max_length": 512, "adapter.r": 64})
    followed = TraceStore(tmp_path).trace(skeleton, recipe, budget.device)
    assert trace_step(skeleton, large, plan_step(Setup.of(large), budget.device)) == followed
    # From the disk, as a later process reads it.
    store = TraceStore(tmp_path)
    quick = price(skeleton, large, budget, traced=store).peak
    exact = price(skeleton, large, budget, traced=store, replays=True).peak
    assert (quick.method, exact.method) == ("trace", "trace")
    assert exact.allocated_bytes == pytest.approx(quick.allocated_bytes, rel=0.1)
    assert exact.allocated_bytes == sum(size for term, size in exact.terms.items() if term != "cuda_context")
    assert exact.reserved_range
    assert exact.allocated_bytes <= exact.reserved_range[0] <= exact.reserved_bytes <= exact.reserved_range[1]


def test_a_tape_survives_json() -> None:
    sizes = (Monomial(4, (1, 1, 0)), Monomial(12, (1, 2, 0)))
    moves = ((0, 0), (1, 1), (CARRIED, -1), (0, -1), (2, 0), (3, 2), (3, -1), (1, -1))
    tape = Tape(sizes, moves, (2,), 2)
    assert Tape.from_json(json.loads(json.dumps(tape.as_json()))) == tape
    assert tape.sizes_at(2, 100, 8) == [800, 240_000, 200 * TILE_WIDTH * 2]


@pytest.mark.parametrize(
    ("method", "prepared", "allocated", "reserved", "peak"),
    [("nf4", "float32", 0.6804, 0.9570, 0.9339), ("none", "bfloat16", 0.9279, 0.9688, 0.9279)],
)
def test_loading_as_it_was_measured(method: str, prepared: str, allocated: float, reserved: float, peak: float) -> None:
    """Qwen2.5-0.5B on an RTX 4080, in GiB: with k-bit preparation from files, and in 16 bits with ``model.to``."""
    skeleton = catalog_skeleton("Qwen/Qwen2.5-0.5B-Instruct")
    assert skeleton
    loaded = Storage(method, method == "nf4", "bfloat16")
    events = list(
        loading_events(skeleton, loaded, replace(loaded, dtype=prepared))
        if method == "nf4"
        else moving_events(skeleton, loaded)
    )
    allocator = CachingAllocator()
    highest = 0
    for name, size in events:
        allocator.replay([(name, size)])
        highest = max(highest, 0 if name == "warm-up" else allocator.allocated)
    assert allocator.allocated / 2**30 == pytest.approx(allocated, abs=5e-5)
    assert allocator.reserved / 2**30 == pytest.approx(reserved, abs=5e-5)
    assert highest / 2**30 == pytest.approx(peak, abs=5e-5)


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
        {"training.gradient_checkpointing": "offload"},
        {"training.tiled_mlp": True},
        {"training.gradient_accumulation_steps": 1},
        {"adapter.target_modules": ["q_proj"]},
        {"quantization.compute_dtype": "float32"},
        {"model.attn_implementation": "eager"},
    ]
    # PyTorch's own flash attention and that of the package allocate the same.
    same += [{"model.attn_implementation": name} for name in ("sdpa", "flash_attention_2")]
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
    from bench.accuracy import predicted
    from bench.published import rtx4080

    errors = [predicted(run)[0].allocated_bytes / run.allocated - 1 for run in rtx4080()]
    assert len(errors) == 11
    assert max(map(abs, errors)) < 0.01
    assert sum(map(abs, errors)) / len(errors) < 0.002


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
