"""What an evaluation finds, against plain transformers and PEFT on the same weights."""

import json
import math
import threading

import pytest

from tests.engine.runs_of_tiny import events_of
from tests.evaluation.conftest import UNSEEN, train
from workbench.engine.client.protocol import EvaluateRequest, TaskSettings
from workbench.engine.generation.evaluate import evaluate
from workbench.engine.generation.task_evaluation import evaluate_tasks
from workbench.errors import WorkbenchError
from workbench.evaluation.formatting import caution
from workbench.evaluation.result import evaluations, read_evaluation
from workbench.evaluation.task_result import TASK_RESULTS


class Engine:
    """Keeps a base from one evaluation to the next, as the engine does."""

    def __init__(self, home):
        self.home = home
        self.base = None
        self.loads = 0
        self.told = []
        self.cancelled = threading.Event()

    def load(self, load):
        self.base = None
        self.loads += 1
        self.base = load()
        return self.base

    def judge(self, run, **options):
        request = EvaluateRequest(run=str(run.path), **options)
        file = evaluate(self.home, request, self.base, self.load, self.told.append, self.cancelled)
        return read_evaluation(file)

    def evaluate_tasks(self, run, **settings):
        request = EvaluateRequest(run=str(run.path), tasks=TaskSettings(**settings))
        file = evaluate_tasks(self.home, request, self.base, self.load, self.told.append, self.cancelled)
        return TASK_RESULTS.read(file)


@pytest.fixture(scope="module")
def engine(home):
    return Engine(home)


def data_of(run, source, **more):
    return run.recipe().data.model_dump() | {"source": str(source)} | more


def plain_model(run, folder=None):
    """Model and tokenizer with nothing of ours: transformers, and PEFT where there is an adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    recipe = run.recipe()
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        recipe.model.source,
        dtype=torch.float32,
        quantization_config=nf4 if recipe.quantization.method == "nf4" else None,
    )
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # Or bitsandbytes rewrites the weights for speed, and rounds their scales.
            layer.support_avx512bf16_for_cpu = False
    if folder is not None:
        model = PeftModel.from_pretrained(model, folder)
    return model.eval(), AutoTokenizer.from_pretrained(recipe.model.source)


def plain_figures(model, tokenizer, records):
    """Perplexity and token accuracy of the replies: one record at a time, all logits at hand, cross entropy."""
    import torch

    nats, count, right = 0.0, 0, 0
    for record in records:
        prompt = f"<|im_start|>user\n{record['instruction']}<|im_end|>\n<|im_start|>assistant\n"
        asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        replied = tokenizer(f"{record['response']}<|im_end|>", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([asked + replied])).logits[0].double()
        # The token at a place is predicted by the logits of the place before it.
        predicted, wanted = logits[len(asked) - 1 : -1], torch.tensor(replied)
        nats += torch.nn.functional.cross_entropy(predicted, wanted, reduction="sum").item()
        right += int((predicted.argmax(-1) == wanted).sum())
        count += len(replied)
    return math.exp(nats / count), right / count, count


def plain_reply(model, tokenizer, question, most):
    """A greedy reply, a token at a time, with no cache and no padding."""
    import torch

    ids = tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    ids, start = ids["input_ids"], len(ids["input_ids"])
    while len(ids) < start + most and (len(ids) == start or ids[-1] != tokenizer.eos_token_id):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_perplexity_accuracy_and_replies_are_those_of_plain_transformers(home, tiny_llama, records, unseen, method):
    run = train(home, tiny_llama, records, method=method)
    found = Engine(home).judge(run, data=data_of(run, unseen), replies=5, max_new_tokens=24, prompts=["Who?"])
    assert [judged.name for judged in found.judged] == ["base", run.id]
    assert (found.records, found.more, found.own, found.left_out) == (len(UNSEEN), False, False, 0)
    for judged in found.judged:
        model, tokenizer = plain_model(run, judged.folder)
        perplexity, accuracy, count = plain_figures(model, tokenizer, UNSEEN)
        assert judged.figures.perplexity.value == pytest.approx(perplexity, rel=1e-4)
        assert judged.figures.loss.value == pytest.approx(math.log(perplexity), rel=1e-4)
        assert judged.figures.token_accuracy.value == accuracy
        assert found.tokens == count
        asked = {"Who?": "Who?"} | {record["instruction"]: record["instruction"] for record in UNSEEN[:5]}
        assert [one.prompt for one in found.answered] == list(asked)
        # On some processors replies of a 4-bit base come from weights repacked for speed, which rounds them.
        for one in found.answered if method == "none" else ():
            assert one.replies[judged.name] == plain_reply(model, tokenizer, one.prompt, 24), one.prompt
    assert [one.reference for one in found.answered] == [None, *(record["response"] for record in UNSEEN[:5])]
    base, tuned = (judged.figures for judged in found.judged)
    assert tuned.perplexity.value < base.perplexity.value
    assert base.perplexity.low <= base.perplexity.value <= base.perplexity.high
    assert found.judged[1].minus.perplexity.value == pytest.approx(base.perplexity.value - tuned.perplexity.value)


def test_of_its_own_records_those_are_taken_that_were_held_out(engine, run):
    found = engine.judge(run, replies=0, prompts=[])
    evals = events_of(run, "eval")
    assert found.own
    assert (found.records, found.tokens) == (evals[0]["records"], evals[0]["tokens"]) == (6, evals[-1]["tokens"])
    assert found.judged[0].figures.perplexity.value == pytest.approx(evals[0]["perplexity"], rel=1e-6)
    assert found.judged[1].figures.perplexity.value == pytest.approx(evals[-1]["perplexity"], rel=1e-6)
    assert found.judged[1].figures.token_accuracy.value == evals[-1]["token_accuracy"]
    assert found.answered == []
    assert found.judged[0].figures.exact is None
    before = run.journal.read_bytes()
    engine.judge(run, replies=0, prompts=[])
    assert run.journal.read_bytes() == before


def test_checkpoints_and_other_adapters_take_part_on_one_base(engine, run, home, tiny_llama, records, unseen):
    other = train(home, tiny_llama, records, use_rslora=True)
    engine.base, engine.loads = None, 0
    found = engine.judge(
        run, data=data_of(run, unseen), checkpoints=True, adapters=[other.id, f"{other.id}@20"], replies=2, prompts=[]
    )
    names = ["base", f"{run.id}@20", f"{run.id}@30", run.id, other.id, f"{other.id}@20"]
    assert [judged.name for judged in found.judged] == names
    assert engine.loads == 1
    perplexity = {judged.name: judged.figures.perplexity.value for judged in found.judged}
    # The last checkpoint is the adapter; the others are not alike.
    assert perplexity[f"{run.id}@30"] == pytest.approx(perplexity[run.id], rel=1e-6)
    assert len({round(value, 6) for value in perplexity.values()}) == len(names) - 1
    for judged in found.judged:
        model, tokenizer = plain_model(run, judged.folder)
        assert judged.figures.perplexity.value == pytest.approx(plain_figures(model, tokenizer, UNSEEN)[0], rel=1e-4)
    assert {tuple(one.replies) for one in found.answered} == {tuple(names)}


def test_an_adapter_that_alters_the_base_is_judged_against_the_true_base(home, tiny_llama, records, unseen):
    # PiSSA takes part of the weights out of the base when it is put on.
    run = train(home, tiny_llama, records, init_lora_weights="pissa")
    engine = Engine(home)
    found = engine.judge(run, data=data_of(run, unseen), replies=1, prompts=[])
    for judged in found.judged:
        model, tokenizer = plain_model(run, judged.folder)
        assert judged.figures.perplexity.value == pytest.approx(plain_figures(model, tokenizer, UNSEEN)[0], rel=1e-3)
    assert engine.loads > 1


def test_records_and_replies_are_as_many_as_asked_for(engine, run, unseen):
    found = engine.judge(run, data=data_of(run, unseen), records=3, replies=2, prompts=["a", "b"])
    assert (found.records, found.more) == (3, True)
    assert [(one.prompt, one.fixed) for one in found.answered][:2] == [("a", True), ("b", True)]
    assert len(found.answered) == 4
    assert found.referenced == 2
    assert all(len(values) == 3 for values in (found.per_record.tokens, *found.per_record.loss.values()))


def test_chunks_of_a_document_are_one_record(engine, run, tmp_path):
    (tmp_path / "notes.txt").write_text("The mate looked at the grey water and said nothing at all.\n\n" * 12)
    (tmp_path / "more.txt").write_text("Short.")
    found = engine.judge(run, data=data_of(run, tmp_path), replies=2, prompts=[])
    assert found.records == 2
    assert max(found.per_record.tokens) > 64  # more than one chunk
    assert [one.reference for one in found.answered] == [None, None]
    assert found.referenced == 0


def test_a_prompt_that_fills_the_context_is_left_out_and_counted(engine, run, tmp_path):
    long = tmp_path / "long.jsonl"
    rows = [
        {"instruction": "word " * 400, "response": "x"},
        {"instruction": "Question 2?", "response": "Aye, answer 2."},
    ]
    long.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = engine.judge(run, data=data_of(run, long), replies=2, prompts=[])
    assert found.records == 1  # the other one lost its reply to the cut at 64 tokens
    assert (found.left_out, found.too_long) == (1, 1)
    assert [one.prompt for one in found.answered] == ["Question 2?"]


def stopped_at(engine, phase, model=""):
    """An engine on the same base whose evaluation is stopped at the first progress of a phase."""
    stopped = Engine(engine.home)
    stopped.base = engine.base
    stopped.told = Cancelling(stopped, phase, model)
    return stopped


def test_an_evaluation_that_is_stopped_keeps_what_can_be_compared(engine, run, unseen):
    whole = engine.judge(run, data=data_of(run, unseen), replies=3, max_new_tokens=8)
    before = evaluations(run)
    with pytest.raises(WorkbenchError, match="before anything could be compared"):
        stopped_at(engine, "evaluating").judge(run, data=data_of(run, unseen), replies=3)
    assert evaluations(run) == before
    assert whole.planned is None
    for model in ("base", run.id):
        kept = stopped_at(engine, "replying", model).judge(run, data=data_of(run, unseen), replies=3)
        assert [one.figures.perplexity for one in kept.judged] == [one.figures.perplexity for one in whole.judged]
        assert (kept.records, kept.planned, kept.answered) == (whole.records, whole.records, [])
        assert f"Stopped early: {whole.records} of {whole.records} records." in caution(kept)
    # In the middle of the adapter's records, those that both have are compared.
    kept = stopped_at(engine, "evaluating", run.id).judge(run, data=data_of(run, unseen), replies=3)
    assert 0 < kept.records < kept.planned == whole.records
    assert len(evaluations(run)) == len(before) + 3


class Cancelling:
    """Cancels at the first progress of a model in a phase."""

    def __init__(self, engine, phase, model):
        self.engine = engine
        self.phase = phase
        self.model = model

    def append(self, progress):
        if progress.phase == self.phase and progress.detail.startswith(self.model):
            self.engine.cancelled.set()


def test_progress_names_who_is_judged_and_never_goes_back(engine, run, unseen):
    engine.told.clear()
    engine.judge(run, data=data_of(run, unseen), replies=3, max_new_tokens=8)
    for phase in ("evaluating", "replying"):
        fractions = [progress.fraction for progress in engine.told if progress.phase == phase]
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] <= fractions[-1] < 1.01
        details = {progress.detail for progress in engine.told if progress.phase == phase}
        assert details == {"base, 1 of 2", f"{run.id}, 2 of 2"}


def test_an_adapter_of_another_base_is_refused_with_both_names(engine, run, home, records, tmp_path):
    from tests.conftest import make_tiny_llama

    other = train(home, make_tiny_llama(tmp_path / "other", hidden_size=32), records)
    with pytest.raises(WorkbenchError) as refused:
        engine.judge(run, adapters=[other.id], replies=0)
    assert str(tmp_path / "other") in refused.value.message
    assert run.recipe().model.source in refused.value.message


def test_a_run_that_held_nothing_out_asks_for_records(engine, run, tmp_path):
    import shutil

    from workbench.recipe.text import edit, to_yaml
    from workbench.runs.folder import RunFolder

    copy = RunFolder(tmp_path / run.id)
    shutil.copytree(run.path, copy.path)
    copy.recipe_file.write_text(to_yaml(edit(run.recipe(), {"data.eval_fraction": 0.0})))
    with pytest.raises(WorkbenchError, match="has no held-out records") as refused:
        engine.judge(copy)
    assert "--data" in refused.value.cure


def test_a_run_without_an_adapter_says_so(engine, home, run, tmp_path):
    from workbench.runs.folder import RunFolder

    (tmp_path / "fresh").mkdir()
    fresh = RunFolder(tmp_path / "fresh")
    fresh.recipe_file.write_bytes(run.recipe_file.read_bytes())
    with pytest.raises(WorkbenchError, match="no adapter yet"):
        engine.judge(fresh)
