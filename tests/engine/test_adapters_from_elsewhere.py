"""Adapters that plain PEFT made elsewhere: on a base under another name, and of every kind that people share."""

import json

import pytest

from tests.engine.runs_of_tiny import begin, ended, events_of
from tests.engine.test_voices import TOKENS, ask
from tests.engine.voices_of_tiny import answered, plain_reply, save_random_adapter
from workbench.engine.daemon.engine import Engine
from workbench.engine.model.precision import choose_precision
from workbench.errors import WorkbenchError
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.recipe.text import edit

ELSEWHERE = "/somewhere/else/llama-7b"


def moved(folder) -> None:
    """Let the adapter name a base of another machine."""
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": ELSEWHERE}
    file.write_text(json.dumps(config), encoding="utf-8")


def enlarged_adapter(model_folder, folder, rows: int, **options):
    """As a trainer does who adds tokens: the embedding is resized, the adapter and the tokenizer are saved."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.add_tokens([f"<added{n}>" for n in range(rows - len(tokenizer))])
    model.resize_token_embeddings(rows)
    config = LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **options)
    get_peft_model(model, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plain_answer(model_folder, folder, rows: int = 0) -> str:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    dtype = getattr(torch, choose_precision(QuantizationSection()).compute)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype, quantization_config=config)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    tokenizer = AutoTokenizer.from_pretrained(folder if rows else model_folder)
    return plain_reply(PeftModel.from_pretrained(model, folder).eval(), tokenizer, TOKENS)


KINDS = {
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True},
    "whole modules": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=list(KINDS))
def test_each_kind_replies_as_plain_peft_on_a_base_that_the_user_names(home, tiny_llama, tmp_path, options):
    folder = save_random_adapter(tiny_llama, tmp_path / "adapter", 1, **options)
    moved(folder)
    engine = Engine(home)
    with pytest.raises(WorkbenchError) as caught:
        answered(engine, ask(str(folder)))
    assert "base_model_name_or_path" in caught.value.message
    assert ELSEWHERE in caught.value.message
    assert "--base" in caught.value.cure
    reply, _, _ = answered(engine, ask(str(folder), base=str(tiny_llama)))
    assert reply == plain_answer(tiny_llama, folder)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ],
    ids=["LoRA of both", "copies of both"],
)
def test_an_enlarged_vocabulary_resizes_the_base_and_says_so(home, tiny_llama, tmp_path, options):
    rows = 400
    folder = enlarged_adapter(tiny_llama, tmp_path / "adapter", rows, **options)
    pieces, errors = [], []
    import threading

    done, engine = threading.Event(), Engine(home)
    engine.reply(ask(str(folder)), pieces.append, lambda error: (errors.append(error), done.set()))
    assert done.wait(120)
    assert errors == [None]
    reply = "".join(getattr(piece, "text", "") for piece in pieces)
    notices = [piece.notice for piece in pieces if getattr(piece, "notice", "")]
    assert len(notices) == 1
    assert f"resized to {rows}" in notices[0]
    assert reply == plain_answer(tiny_llama, folder, rows)
    # The base alone has its own rows again, and the adapter its own base.
    assert answered(engine, ask(str(folder), adapter=False))[0] != reply
    assert answered(engine, ask(str(folder)))[0] == reply


def test_a_base_of_another_shape_and_one_without_adapter_are_refused(home, tiny_llama, tmp_path):
    from tests.conftest import make_tiny_llama

    other = make_tiny_llama(tmp_path / "wide", hidden_size=32)
    folder = save_random_adapter(tiny_llama, tmp_path / "adapter", 1)
    with pytest.raises(WorkbenchError, match="does not fit"):
        answered(Engine(home), ask(str(folder), base=str(other)))
    with pytest.raises(WorkbenchError, match="is a base model itself"):
        answered(Engine(home), ask(str(tiny_llama), base=str(other)))


def test_a_run_continues_an_adapter_on_the_base_of_the_recipe_whatever_the_adapter_calls_it(
    home, recipe, tiny_llama, tmp_path
):
    from safetensors.torch import load_file

    from tests.conftest import make_tiny_llama

    folder = save_random_adapter(tiny_llama, tmp_path / "adapter", 1)
    moved(folder)
    changes = {"adapter.continue_from": str(folder), "adapter.r": 4, "adapter.lora_alpha": 8, "training.max_steps": 1}
    recipe = edit(recipe, {**changes, "training.learning_rate": 1e-5})
    run, thread = begin(home, recipe)
    ended(thread)
    [notice] = [event["message"] for event in events_of(run, "warning") if event.get("kind") == "starting_adapter"]
    assert f"names {ELSEWHERE} as its base. It is continued on {tiny_llama}" in notice
    before, after = (load_file(place / "adapter_model.safetensors") for place in (folder, run.adapter))
    assert all(float((after[name].float() - tensor.float()).abs().max()) < 0.02 for name, tensor in before.items())

    def refusal(**more) -> WorkbenchError:
        _, thread = begin(home, edit(recipe, {name.replace("__", "."): value for name, value in more.items()}))
        thread.join(240)
        assert thread.error is not None
        return thread.error

    wide = make_tiny_llama(tmp_path / "wide", hidden_size=32)
    assert "does not fit" in refusal(model__source=str(wide)).message
    # A run of this home says which base it was trained on.
    of_run = refusal(model__source=str(wide), adapter__continue_from=run.id)
    assert f"was trained on {tiny_llama}" in of_run.message
    assert f"Set model.source to {tiny_llama}." in of_run.cure
    rows = enlarged_adapter(tiny_llama, tmp_path / "rows", 400, target_modules=["q_proj", "embed_tokens"])
    enlarged = refusal(adapter__continue_from=str(rows))
    assert "enlarged vocabulary of 400 rows" in enlarged.message
    assert "merged" in enlarged.cure


def test_the_order_of_asking_changes_no_reply(home, tiny_llama, tmp_path):
    """Adapters of different methods, of which some change the base or resize it, forwards and backwards."""
    made = {
        "lora": save_random_adapter(tiny_llama, tmp_path / "lora", 1),
        "dora": save_random_adapter(tiny_llama, tmp_path / "dora", 2, use_dora=True),
        "modules": save_random_adapter(tiny_llama, tmp_path / "modules", 3, modules_to_save=["embed_tokens"]),
        "biases": save_random_adapter(tiny_llama, tmp_path / "biases", 4, bias="lora_only"),
        "ia3": ia3_adapter(tiny_llama, tmp_path / "ia3"),
        "rows": enlarged_adapter(tiny_llama, tmp_path / "rows", 400, target_modules=["q_proj", "embed_tokens"]),
    }
    engine = Engine(home)
    forwards = {name: answered(engine, ask(str(folder)))[0] for name, folder in made.items()}
    backwards = {name: answered(engine, ask(str(folder)))[0] for name, folder in reversed(made.items())}
    assert forwards == backwards
    assert len(set(forwards.values())) == len(made)


def ia3_adapter(model_folder, folder):
    import torch
    from peft import IA3Config, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj"], feedforward_modules=[])
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "ia3_" in name:
                parameter.normal_(std=2.0)
    adapted.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "METHOD_OF_NEXT_YEAR"])
def test_methods_that_are_not_known_are_named(home, tiny_llama, tmp_path, kind):
    folder = save_random_adapter(tiny_llama, tmp_path / "adapter", 1)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"peft_type": kind}))
    with pytest.raises(WorkbenchError, match=kind):
        answered(Engine(home), ask(str(folder)))
