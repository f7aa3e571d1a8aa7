"""Runs with checkpoints in host memory: the adapters of runs without."""

from types import SimpleNamespace

import pytest

from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, events_of, out_of_memory_once
from tests.tiny_pairs import write_pairs
from workbench.engine.training.session import layer_memory
from workbench.errors import WorkbenchError
from workbench.layers import host_checkpoints
from workbench.recipe.text import edit

CHECKPOINTING = "training.gradient_checkpointing"
SHORT = {
    "training.max_steps": 3, "training.per_device_train_batch_size": 2, "training.gradient_accumulation_steps": 2,
    "adapter.lora_dropout": 0.1, "data.eval_fraction": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"quantization.method": "int8"}, {"objective.kind": "dpo"}], ids=str)
def test_adapters_are_those_of_runs_that_keep_them_on_the_device(home, recipe, tmp_path, changes):
    if "objective.kind" in changes:
        changes = {**changes, "data.source": str(write_pairs(tmp_path / "pairs.jsonl"))}
    recipe = edit(recipe, {**SHORT, CHECKPOINTING: True, **changes})
    plain, thread = begin(home, recipe)
    ended(thread)
    offloaded = edit(recipe, {CHECKPOINTING: "offload"})
    run, thread = begin(home, offloaded, thread.base)
    ended(thread)
    assert curve(run) == curve(plain)
    assert adapter_digest(run) == adapter_digest(plain)
    assert "Checkpoints are copied within host memory" in str(
        [event.get("reasons") for event in events_of(run, "phase")]
    )
    assert not [event for event in events_of(run, "warning") if event["kind"] == "host_checkpoints"]
    if not changes:
        digests = set()
        for other in (recipe, offloaded):
            with out_of_memory_once():
                split, thread = begin(home, other, thread.base)
                ended(thread)
            digests.add(adapter_digest(split))
        assert len(digests) == 1


def test_a_host_that_has_too_little_refuses_the_run(monkeypatch):
    """As on a GPU, where pinned memory cannot be swapped out."""

    trainer = SimpleNamespace(host_checkpoints=None)
    training = SimpleNamespace(gradient_checkpointing="offload")
    context = SimpleNamespace(recipe=SimpleNamespace(training=training), ranks=SimpleNamespace(count=2))
    base = SimpleNamespace(model=object(), device=SimpleNamespace(type="cuda"))
    monkeypatch.setattr(layer_memory, "host_memory", lambda: (64 << 30, 30 << 30))
    monkeypatch.setattr(host_checkpoints, "link_speed", lambda device: 12.3e9)
    with pytest.raises(WorkbenchError, match=r"need 16.0 GiB of it; 15.0 GiB are available"):
        layer_memory.keep_checkpoints_on_host(context, base, trainer, 16 << 30)
    notice = layer_memory.keep_checkpoints_on_host(context, base, trainer, 14 << 30)
    assert notice == "Checkpoints lie in host memory (14.0 GiB reserved), over a link of 12.3 GB/s as measured."
