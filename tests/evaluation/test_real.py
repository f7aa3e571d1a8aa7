"""An evaluation of a real chat model, against plain transformers."""

import math
import threading

import pytest

pytestmark = pytest.mark.real

RECORDS = [
    {"instruction": "What is the capital of France?", "response": "The capital of France is Paris."},
    {"instruction": "Name a primary color.", "response": "Red is a primary color."},
    {"instruction": "How many legs has a spider?", "response": "A spider has eight legs."},
]


def test_figures_and_replies_of_smollm2_are_those_of_transformers(smollm2_home, tmp_path):
    import json

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.engine.runs_of_tiny import begin, ended
    from workbench.engine.client.protocol import EvaluateRequest
    from workbench.engine.generation.evaluate import evaluate
    from workbench.evaluation.result import read_evaluation
    from workbench.models.sources import find_local
    from workbench.recipe.sections.model import ModelSection
    from workbench.recipe.text import parse
    from workbench.storage.paths import Home

    folder = find_local(smollm2_home, ModelSection()).folder
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    home = Home(tmp_path / "home")
    recipe = parse(
        {
            "model": {"source": str(folder)},
            "quantization": {"method": "none", "compute_dtype": "float32"},
            "data": {"source": str(records), "max_length": 128, "eval_fraction": 0.0},
            "training": {"max_steps": 2, "gradient_accumulation_steps": 1, "save_steps": 0},
        }
    )
    run, thread = begin(home, recipe)
    base = ended(thread).base
    request = EvaluateRequest(
        run=str(run.path), data={**recipe.data.model_dump(), "split": "train[:3]"}, replies=3, max_new_tokens=12
    )
    file = evaluate(home, request, base, lambda load: load(), lambda progress: None, threading.Event())
    found = read_evaluation(file)
    assert [one.fixed for one in found.answered] == [True] * 4 + [False] * 3

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    nats, count = 0.0, 0
    for record in RECORDS:
        # The model's own template brings its system prompt.
        turns = [{"role": "user", "content": record["instruction"]}]
        asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(asked, add_special_tokens=False)["input_ids"]
        reply = tokenizer(record["response"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            likely = model(torch.tensor([ids + reply])).logits[0].double().log_softmax(-1)
        nats -= sum(likely[len(ids) - 1 + place, token].item() for place, token in enumerate(reply))
        count += len(reply)
    assert found.tokens == count
    assert found.judged[0].figures.perplexity.value == pytest.approx(math.exp(nats / count), rel=1e-4)
    for one in found.answered:
        turns = [{"role": "user", "content": one.prompt}]
        inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        reply = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert one.replies["base"] == reply
