"""A base is quantised once; what is read back is bit for bit what was quantised, or it is not used."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import make_tiny_model
from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, events_of
from workbench.engine.model import quantized_store as quantised_store
from workbench.engine.model.load_base import load_base
from workbench.recipe.text import edit
from workbench.storage import disk_cache
from workbench.storage.disk_cache import DiskCache

METHODS = {
    "nf4": {"quantization.method": "nf4"},
    "nf4 without double quant": {"quantization.method": "nf4", "quantization.double_quant": False},
    "fp4": {"quantization.method": "fp4"},
    "nf4 in float32": {"quantization.method": "nf4", "quantization.compute_dtype": "float32"},
    "int8": {"quantization.method": "int8"},
}


@pytest.fixture(autouse=True)
def _tiny_ones_too(monkeypatch):
    monkeypatch.setattr(quantised_store, "_MIN_BYTES", 0)
    monkeypatch.setattr(disk_cache, "_MIN_FREE", 0)


@pytest.fixture
def load(home):
    """Loads a recipe's base; gives what was reported, too. What is written meanwhile is waited for."""

    def once(recipe):
        told = []
        base = load_base(home, recipe.model, recipe.quantization, told.append, lambda: False)
        written()
        return base, [progress.detail for progress in told]

    return once


def written() -> None:
    for thread in threading.enumerate():
        if thread.name == "cache the base":
            thread.join(60)
            assert not thread.is_alive()


def cache(home) -> DiskCache:
    return DiskCache.of(home, "quantised")


def assert_same(one, other):
    """Every parameter, constant and buffer, and what the layers are told to compute in."""
    first, second = (dict(model.named_parameters(remove_duplicate=False)) for model in (one, other))
    assert first.keys() == second.keys()
    for name, parameter in first.items():
        assert type(parameter) is type(second[name])
        _assert_same_values(
            vars(parameter) | {"data": parameter.data}, vars(second[name]) | {"data": second[name].data}
        )
    _assert_same_values(dict(one.named_buffers()), dict(other.named_buffers()))
    for (name, module), (other_name, twin) in zip(one.named_modules(), other.named_modules(), strict=True):
        assert (name, type(module)) == (other_name, type(twin))
        plain = {
            key: value for key, value in vars(module).items() if isinstance(value, int | float | str | torch.dtype)
        }
        assert plain == {key: vars(twin)[key] for key in plain}
    assert one.config.to_dict() == other.config.to_dict()
    assert one.generation_config.to_dict() == other.generation_config.to_dict()


def _assert_same_values(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[key].dtype
            assert torch.equal(value, other[key]), key
        elif type(value).__name__ == "QuantState":
            _assert_same_values(vars(value), vars(other[key]))
        elif key != "module":
            assert value == other[key], key


@pytest.mark.parametrize("method", METHODS)
def test_what_is_read_is_what_was_quantised(home, recipe, load, method):
    recipe = edit(recipe, METHODS[method])
    fresh, told = load(recipe)
    assert not any("before" in detail for detail in told)
    again, told = load(recipe)
    assert told[-1].endswith(", quantized before")
    assert len(cache(home).entries()) == 1
    assert_same(fresh.model, again.model)
    assert (again.footprint, again.reference, again.local) == (fresh.footprint, fresh.reference, fresh.local)
    assert again.is_unchanged
    tied = again.model.get_output_embeddings().weight is again.model.get_input_embeddings().weight
    assert tied


def test_a_run_on_a_kept_base_is_the_same_run(home, recipe):
    recipe = edit(recipe, {"data.eval_fraction": 0.2, "training.eval_steps": 4})
    first, thread = begin(home, recipe)
    ended(thread)
    written()
    second, thread = begin(home, recipe)
    ended(thread)
    details = [event["detail"] for event in events_of(second, "phase") if event["phase"] == "loading"]
    assert any(detail.endswith("quantized before") for detail in details)
    assert curve(second) == curve(first)
    assert [event["loss"] for event in events_of(second, "eval")] == [e["loss"] for e in events_of(first, "eval")]
    assert adapter_digest(second) == adapter_digest(first)


def test_what_training_changes_in_place_is_not_what_is_kept(home, tmp_path, recipe, load, monkeypatch):
    from transformers import Qwen2ForCausalLM

    folder = make_tiny_model(tmp_path / "tiny-qwen", Qwen2ForCausalLM)
    recipe = edit(recipe, {"model.source": str(folder), "adapter.bias": "all"})
    untouched, _ = load(recipe)
    cache(home).clear()
    # The run is over before the first byte is written.
    begun, trained = quantised_store._write_weights, threading.Event()
    monkeypatch.setattr(quantised_store, "_write_weights", lambda *given: trained.wait(60) and begun(*given))
    run, thread = begin(home, recipe)
    ended(thread)
    trained.set()
    written()
    again, told = load(recipe)
    assert told[-1].endswith("quantized before")
    assert_same(untouched.model, again.model)
    assert len(curve(run)) == 8


def test_a_base_that_goes_takes_what_is_not_yet_written_along(home, recipe, monkeypatch, capfd):
    import gc
    import weakref

    begun, gone = quantised_store._write_weights, threading.Event()
    monkeypatch.setattr(quantised_store, "_write_weights", lambda *given: gone.wait(60) and begun(*given))
    base = load_base(home, recipe.model, recipe.quantization, lambda progress: None, lambda: False)
    weight = weakref.ref(base.model.model.layers[0].self_attn.q_proj.weight.untyped_storage())
    del base
    gc.collect()
    assert weight() is None
    gone.set()
    written()
    assert "not cached" in capfd.readouterr().out
    assert not list(cache(home).folder.iterdir())


def _shorten(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def _flip_a_bit(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _shorten,
        _flip_a_bit,
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "written.json").write_text("[]"),
    ],
)
def test_a_damaged_one_is_dropped_and_the_base_quantised_anew(home, recipe, load, damage):
    fresh, _ = load(recipe)
    damage(cache(home).entries()[0].folder)
    again, told = load(recipe)
    assert "damaged" in told[-1]
    assert_same(fresh.model, again.model)
    _, told = load(recipe)
    assert told[-1].endswith("quantized before")


def test_what_transformers_would_make_another_model_of_is_tried_once(home, recipe, load):
    fresh, _ = load(recipe)
    folder = cache(home).entries()[0].folder
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    assert text != (folder / "config.json").read_text()
    again, _ = load(recipe)
    assert_same(fresh.model, again.model)
    _, told = load(recipe)
    assert "before" not in told[-1]
    assert [entry.what.endswith("cannot be cached") for entry in cache(home).entries()] == [True]


def test_a_model_that_was_changed_is_another_one(home, tmp_path, tiny_llama, recipe, load):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    recipe = edit(recipe, {"model.source": str(folder)})
    load(recipe)
    weights = folder / "model.safetensors"
    before = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    _, told = load(recipe)
    assert "before" not in told[-1]
    assert len(cache(home).entries()) == 2


def test_the_one_used_longest_ago_goes_when_there_are_too_many(home, recipe, load):
    methods = ["nf4", "fp4", "int8"]
    for method in methods[:2]:
        load(edit(recipe, {"quantization.method": method}))
    size = max(entry.bytes for entry in cache(home).entries())
    for entry in cache(home).entries():
        os.utime(entry.folder / "about.json", (time.time() - 1000 * ("nf4" in entry.what),) * 2)
    home.settings.write_text(f'{{"cache": {{"quantised_gb": {2.9 * size / 1e9}}}}}')
    load(edit(recipe, {"quantization.method": "int8"}))
    assert [any(method in entry.what for entry in cache(home).entries()) for method in methods] == [False, True, True]


@pytest.mark.parametrize("settings", ['{"cache": {"quantised_gb": 0}}', '{"cache": {"quantised_gb": 1e-6}}'])
def test_nothing_is_kept_beyond_the_limit(home, recipe, load, settings, capfd):
    home.root.mkdir()
    home.settings.write_text(settings)
    load(recipe)
    assert not cache(home).entries()
    assert "not cached" in capfd.readouterr().out


def test_the_last_of_a_disk_is_left_alone(home, recipe, load, monkeypatch, capfd):
    monkeypatch.setattr(disk_cache, "_MIN_FREE", shutil.disk_usage("/").free * 2)
    load(recipe)
    assert not cache(home).entries()
    assert "free on its disk" in capfd.readouterr().out


def test_a_base_in_16_bits_is_not_kept(home, recipe, load):
    load(edit(recipe, {"quantization.method": "none"}))
    assert not cache(home).folder.exists()


def test_what_a_dead_process_left_is_removed(home, recipe, load):
    left = cache(home).folder / f".0123.{2**22 + 1}-abcd"
    left.mkdir(parents=True)
    load(recipe)
    assert not left.exists()
    assert cache(home).entries()[0].folder.stat().st_mode & 0o777 == 0o700
