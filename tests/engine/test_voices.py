"""Several adapters on one base: each answers as plain transformers and PEFT do, and none brings a second base."""

import json
from pathlib import Path

import pytest

from tests.engine.voices_of_tiny import QUESTION, answered, plain_base, plain_reply, run_with_adapter
from workbench.engine.client.protocol import AdapterPart, Message, ReplyRequest, Sampling
from workbench.engine.daemon.engine import Engine
from workbench.errors import WorkbenchError
from workbench.recipe.text import edit

TOKENS = 16


@pytest.fixture
def engine_here(home):
    """The engine's state without its process."""
    return Engine(home)


def ask(target, **changes) -> ReplyRequest:
    fields = {"sampling": Sampling(temperature=0, max_new_tokens=TOKENS), **changes}
    return ReplyRequest(target=target, messages=[Message(role="user", content=QUESTION)], **fields)


def told(engine, target, **changes) -> str:
    return answered(engine, ask(target, **changes))[0]


@pytest.fixture(params=["nf4", "none"])
def runs(request, home, recipe):
    """Three runs on one base: two plain, one rsLoRA of another rank."""
    recipe = edit(recipe, {"quantization.method": request.param})
    options = ({}, {}, {"r": 8, "lora_alpha": 4, "use_rslora": True})
    return [run_with_adapter(home, recipe, seed, **option) for seed, option in enumerate(options)]


@pytest.fixture
def plain(runs, tiny_llama, engine_here):
    """The same base and adapters under plain PEFT, and a way to ask them."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    from workbench.engine.model.precision import choose_precision

    recipe = runs[0].recipe()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)

    def base():
        return plain_base(tiny_llama, recipe.quantization.method, choose_precision(recipe.quantization).compute)

    # A base each: where one spoke before PEFT comes, bitsandbytes unpacks and packs its weights again on a CPU.
    alone = plain_reply(base(), tokenizer, TOKENS)
    model = PeftModel.from_pretrained(base(), runs[0].adapter, adapter_name="a0")
    for number, run in enumerate(runs[1:], 1):
        model.load_adapter(run.adapter, adapter_name=f"a{number}")
    return model.eval(), tokenizer, alone


def test_each_adapter_and_the_base_answer_as_plain_peft_does(engine_here, runs, plain):
    model, tokenizer, alone = plain
    replies = {}
    for number, run in enumerate(runs):
        model.set_adapter(f"a{number}")
        replies[run.id] = plain_reply(model, tokenizer, TOKENS)
    assert len({alone, *replies.values()}) == 4  # the adapters do something, and not the same
    for run in [*runs, *reversed(runs)]:
        assert told(engine_here, run.id) == replies[run.id]
        assert told(engine_here, run.id, adapter=False) == alone
    # Also where the base spoke before any adapter was there: bitsandbytes packs its weights on a CPU then.
    first = Engine(engine_here.home)
    assert told(first, runs[0].id, adapter=False) == alone
    assert [told(first, run.id) for run in runs] == list(replies.values())
    assert told(first, runs[0].id, adapter=False) == alone
    assert told(engine_here, runs[0].id, scale=0) == alone
    assert told(engine_here, runs[0].id) == replies[runs[0].id]  # the scale was of that one reply


def test_switching_reloads_nothing(engine_here, runs):
    told(engine_here, runs[0].id)
    base = engine_here.backend.base
    frozen = {name: p for name, p in base.model.named_parameters() if "lora_" not in name}
    where = {name: p.data_ptr() for name, p in frozen.items()}
    footprints = set()
    for run in [*runs[1:], *runs]:
        _, _, loaded = answered(engine_here, ask(run.id))
        assert loaded == []
        assert engine_here.backend.base is base
        footprints.add(sum(p.numel() for n, p in base.model.named_parameters() if "lora_" not in n))
    after = {name: p for name, p in base.model.named_parameters() if "lora_" not in name}
    # PEFT puts `base_layer` into the names; the tensors are the very same ones.
    assert {p.data_ptr() for p in after.values()} == set(where.values())
    assert {id(p) for p in after.values()} == {id(p) for p in frozen.values()}
    assert len(footprints) == 1
    assert engine_here.status().model.adapters == sorted(str(run.adapter) for run in runs)
    assert engine_here.status().model.adapter == str(runs[-1].adapter)


def test_a_combination_is_the_sum_that_peft_makes(engine_here, runs, plain):
    model, tokenizer, _ = plain
    weights = [0.7, -0.3]
    model.add_weighted_adapter(["a0", "a1"], weights, "sum", combination_type="cat")
    model.set_adapter("sum")
    expected = plain_reply(model.eval(), tokenizer, TOKENS)
    combine = [AdapterPart(target=run.id, weight=weight) for run, weight in zip(runs, weights, strict=False)]
    assert told(engine_here, runs[0].id, combine=combine) == expected
    assert told(engine_here, runs[0].id) != expected
    assert told(engine_here, runs[0].id, combine=combine) == expected
    assert told(engine_here, runs[0].id, combine=combine, scale=0) == told(engine_here, runs[0].id, adapter=False)


def test_a_combination_is_exact_for_ranks_scales_and_rslora(engine_here, runs):
    """Its ΔW in every layer is Σ wᵢ·ΔWᵢ, as near as PEFT's bfloat16 comes to it."""
    from workbench.engine.model.adapters import ActiveAdapters, use_adapters

    told(engine_here, runs[0].id)
    base = engine_here.backend.base
    weights = (0.5, 0.25, 1.5)
    for order in ((0, 1, 2), (2, 0, 1)):
        parts = tuple((runs[i].adapter, weights[i]) for i in order)
        with use_adapters(base, ActiveAdapters(parts)):
            layers = [m for m in base.peft.modules() if hasattr(m, "lora_A") and base.peft.active_adapter in m.lora_A]
            assert layers
            for layer in layers:
                expected = sum(
                    weight * layer.get_delta_weight(base.adapters[folder]).detach() for folder, weight in parts
                )
                got = layer.get_delta_weight(base.peft.active_adapter).detach().float()
                assert float((got - expected).norm() / expected.norm()) < 0.01


def test_merged_is_what_plain_peft_merges(engine_here, runs, tiny_llama):
    from peft import PeftModel
    from transformers import AutoTokenizer

    from workbench.engine.model.precision import choose_precision

    quantization = runs[0].recipe().quantization
    base = plain_base(tiny_llama, "none", choose_precision(quantization).compute)
    merged = PeftModel.from_pretrained(base, runs[1].adapter).merge_and_unload()
    expected = plain_reply(merged.eval(), AutoTokenizer.from_pretrained(tiny_llama), TOKENS)
    assert told(engine_here, runs[1].id, merged=True) == expected
    assert engine_here.backend.base.peft is None
    assert not engine_here.backend.base.is_unchanged
    again, _, loaded = answered(engine_here, ask(runs[1].id, merged=True))
    assert (again, loaded) == (expected, [])
    # Any other voice gets a base of its own again.
    other, _, loaded = answered(engine_here, ask(runs[0].id, merged=True))
    assert other != expected
    assert "merging" in loaded
    _, _, loaded = answered(engine_here, ask(runs[1].id))
    assert loaded
    assert engine_here.backend.base.peft is not None
    assert engine_here.backend.base.quantization == quantization


def test_checkpoints_of_a_run_are_adapters(engine_here, home, recipe, tiny_llama):
    from tests.engine.voices_of_tiny import save_random_adapter

    run = run_with_adapter(home, recipe, 0)
    save_random_adapter(tiny_llama, run.checkpoints / "checkpoint-3", 1)
    last = told(engine_here, run.id)
    earlier, _, loaded = answered(engine_here, ask(f"{run.id}@3"))
    assert loaded == []
    assert earlier != last
    assert told(engine_here, str(run.checkpoints / "checkpoint-3")) == earlier
    with pytest.raises(WorkbenchError, match=r"no adapter in .*checkpoint-4"):
        told(engine_here, f"{run.id}@4")


def test_an_adapter_that_was_written_anew_is_read_anew(engine_here, home, recipe, tiny_llama):
    import shutil

    from tests.engine.voices_of_tiny import save_random_adapter

    run = run_with_adapter(home, recipe, 0)
    before = told(engine_here, run.id)
    shutil.rmtree(run.adapter)
    save_random_adapter(tiny_llama, run.adapter, 1)
    after, _, loaded = answered(engine_here, ask(run.id))
    assert loaded == []
    assert after != before
    assert len(engine_here.backend.base.peft.peft_config) == 1


def test_one_model_in_another_precision_shares_the_base_that_is_there(engine_here, home, recipe):
    small = run_with_adapter(home, recipe, 0)
    large = run_with_adapter(home, edit(recipe, {"quantization.method": "none"}), 1)
    told(engine_here, small.id)
    _, _, loaded = answered(engine_here, ask(large.id, on=small.id))
    assert loaded == []
    _, _, loaded = answered(engine_here, ask(large.id))
    assert loaded


def test_an_adapter_of_another_base_is_refused_with_both_names(engine_here, home, recipe, tmp_path):
    from tests.conftest import make_tiny_llama

    other = make_tiny_llama(tmp_path / "wider-llama", hidden_size=96)
    ours = run_with_adapter(home, recipe, 0)
    theirs = run_with_adapter(home, edit(recipe, {"model.source": str(other)}), 1)
    expected = told(engine_here, ours.id)
    base = engine_here.backend.base
    combine = [AdapterPart(target=ours.id), AdapterPart(target=theirs.id)]
    for request in (ask(theirs.id, on=ours.id), ask(ours.id, combine=combine)):
        with pytest.raises(WorkbenchError) as caught:
            answered(engine_here, request)
        assert caught.value.kind == "adapter_of_another_base"
        assert str(other) in caught.value.message
        assert recipe.model.source in caught.value.message
    # One that lies about its base is found out by its shapes, before it changes anything.
    config = json.loads((theirs.adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = recipe.model.source
    lying = Path(tmp_path / "lying")
    lying.mkdir()
    (lying / "adapter_config.json").write_text(json.dumps(config))
    (lying / "adapter_model.safetensors").write_bytes((theirs.adapter / "adapter_model.safetensors").read_bytes())
    with pytest.raises(WorkbenchError, match=r"does not fit .*: .* has .* features, not"):
        answered(engine_here, ask(str(lying), on=ours.id))
    assert engine_here.backend.base is base
    assert told(engine_here, ours.id) == expected


@pytest.mark.parametrize("options", [{"bias": "all"}, {"init_lora_weights": "pissa"}], ids=["biases", "pissa"])
def test_an_adapter_that_changes_the_base_has_one_to_itself(engine_here, home, recipe, options, tmp_path):
    from tests.engine.voices_of_tiny import save_random_adapter
    from workbench.engine.model.adapter_folder import check_adapter

    recipe = edit(recipe, {"quantization.method": "none", "model.source": str(_with_biases(tmp_path / "biased"))})
    plain, altering = run_with_adapter(home, recipe, 0), run_with_adapter(home, recipe, 1)
    save_random_adapter(Path(recipe.model.source), altering.adapter, 1, **options)
    assert check_adapter(altering.adapter)
    base, tuned = told(engine_here, plain.id, adapter=False), told(engine_here, plain.id)
    changed, _, loaded = answered(engine_here, ask(altering.id))
    assert loaded
    assert not engine_here.backend.base.is_unchanged
    assert answered(engine_here, ask(altering.id))[::2] == (changed, [])
    for _ in range(2):
        assert told(engine_here, altering.id, adapter=False) == base
        assert told(engine_here, plain.id) == tuned
        assert told(engine_here, altering.id) == changed
    for request in (ask(altering.id, scale=0.5), ask(plain.id, combine=[AdapterPart(target=altering.id, weight=0.5)])):
        with pytest.raises(WorkbenchError, match="cannot be scaled or combined"):
            answered(engine_here, request)


def _with_biases(folder: Path) -> Path:
    """A tiny model whose layers have biases."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.conftest import make_tiny_llama

    make_tiny_llama(folder)
    config = AutoConfig.from_pretrained(folder)
    config.attention_bias = config.mlp_bias = True
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def test_a_dora_answers_but_has_no_scale(engine_here, home, recipe):
    run = run_with_adapter(home, recipe, 0, use_dora=True)
    told(engine_here, run.id)
    with pytest.raises(WorkbenchError, match="magnitudes"):
        told(engine_here, run.id, scale=0.5)


def test_training_after_a_chat_with_many_begins_from_the_bare_base(home, recipe, engine_here):
    """Attached adapters leave nothing behind: the run that follows is that of an engine that never chatted."""
    from tests.engine.runs_of_tiny import begin, curve, ended

    recipe = edit(recipe, {"quantization.method": "none", "training.max_steps": 4})
    alone, thread = begin(home, recipe)
    ended(thread)
    runs = [run_with_adapter(home, recipe, seed) for seed in range(2)]
    for run in runs:
        told(engine_here, run.id)
    told(engine_here, runs[0].id, combine=[AdapterPart(target=run.id, weight=0.5) for run in runs])
    base = engine_here.backend.base
    after, thread = begin(home, recipe, base)
    ended(thread)
    assert thread.base is base
    assert curve(after) == curve(alone)


@pytest.mark.real
def test_three_adapters_on_smollm2_answer_as_plain_peft_does(smollm2_home, tmp_path):
    from peft import PeftModel
    from transformers import AutoTokenizer

    from tests.engine.voices_of_tiny import save_random_adapter
    from workbench.engine.model.precision import choose_precision
    from workbench.models.sources import fetch_model
    from workbench.recipe.sections.model import ModelSection
    from workbench.recipe.sections.quantization import QuantizationSection

    folder = fetch_model(smollm2_home, ModelSection(), lambda progress: None, lambda: False).folder
    adapters = []
    for seed in range(3):
        adapter = save_random_adapter(folder, tmp_path / f"adapter{seed}", seed, r=2, lora_alpha=1)
        config = json.loads((adapter / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = ModelSection().source
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        adapters.append(adapter)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    compute = choose_precision(QuantizationSection()).compute
    expected = [plain_reply(plain_base(folder, "nf4", compute), tokenizer, TOKENS)]
    model = PeftModel.from_pretrained(plain_base(folder, "nf4", compute), adapters[0], adapter_name="a0")
    for number, adapter in enumerate(adapters[1:], 1):
        model.load_adapter(adapter, adapter_name=f"a{number}")
    for number in range(3):
        model.set_adapter(f"a{number}")
        expected.append(plain_reply(model.eval(), tokenizer, TOKENS))
    engine = Engine(smollm2_home)
    replies = [told(engine, str(adapters[0]), adapter=False), *(told(engine, str(adapter)) for adapter in adapters)]
    assert replies == expected
    assert len(engine.backend.base.adapters) == 3
