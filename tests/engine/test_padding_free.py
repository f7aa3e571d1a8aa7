"""Batches without padding: what a record is told apart from its neighbors, and that nothing else changes."""

import pytest
import torch

from tests.conftest import make_tiny_model
from workbench.adapters.registry import peft_config
from workbench.engine.generation.evaluation import record_losses
from workbench.engine.kernels.loss_head import add_trained_positions
from workbench.engine.kernels.loss_path import PADDED, LossPath
from workbench.engine.model.load_base import load_base
from workbench.engine.model.loss_check.check import check_loss
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.sections.quantization import QuantizationSection


def _records(lengths, vocabulary=300, prompt=2):
    made = []
    for start, length in enumerate(lengths, 3):
        ids = [(start * 31 + 7 * place * place) % vocabulary for place in range(length)]
        made.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return made


def _loaded(home, folder, method="none", dtype="float32"):
    section = QuantizationSection(method=method, compute_dtype=dtype)
    return load_base(home, ModelSection(source=str(folder)), section, lambda progress: None, lambda: False)


def _log_probs(base, batch):
    return base.model(**batch, use_cache=False, fused_lm_head=True).log_probs.flatten()


ARCHITECTURES = {
    "llama": ("LlamaForCausalLM", {}),
    "mistral with a short window": ("MistralForCausalLM", {"sliding_window": 8}),
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 16}),
    "gemma 3": ("Gemma3ForCausalLM", {"head_dim": 16, "sliding_window": 8}),
    "gpt-neox": ("GPTNeoXForCausalLM", {}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "opt": ("OPTForCausalLM", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
    "phi": ("PhiForCausalLM", {}),
    "qwen3 moe": (
        "Qwen3MoeForCausalLM",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16},
    ),
}


@pytest.fixture
def home(tmp_path):
    from workbench.storage.paths import Home

    return Home(tmp_path / "home")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_record_in_a_row_is_the_record_alone(home, tmp_path, name):
    """Loss and gradient of records side by side equal those of each by itself, which no neighbor could touch."""
    import transformers

    kind, settings = ARCHITECTURES[name]
    base = _loaded(home, make_tiny_model(tmp_path / "model", getattr(transformers, kind), **settings))
    records = _records([21, 5, 34, 13])
    assert check_loss(base, records).path == LossPath()
    collate = LossPath().collator(0)
    weight = base.model.get_input_embeddings().weight.requires_grad_(True)

    def told(batches):
        weight.grad = None
        values = torch.cat([_log_probs(base, collate(batch)) for batch in batches])
        values.sum().backward()
        return values.detach(), weight.grad.clone()

    with base.loss_path(LossPath()):
        (row, of_row), (alone, of_alone) = told([records]), told([[record] for record in records])
    assert len(row) == sum(len(record["input_ids"]) - 2 for record in records)
    torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_row, of_alone, rtol=1e-3, atol=1e-3)


def test_an_attention_that_sees_neighbors_is_found_out(home, tiny_llama, monkeypatch):
    """The check itself: with the mask of the whole row it must refuse, say where, and leave the model as it was."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from workbench.engine.kernels.padding_free import PER_RECORD

    def sees_all(module, query, key, value, mask, **options):
        return sdpa_attention_forward(module, query, key, value, mask, is_causal=True)

    base = _loaded(home, tiny_llama)
    before = base.model.config._attn_implementation
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, PER_RECORD, sees_all)
    found = check_loss(base, _records([21, 5, 34, 13]))
    assert found.path == PADDED
    assert "LlamaAttention (model.layers.0.self_attn)" in found.problem
    assert base.model.config._attn_implementation == before
    assert "forward" not in base.model.__dict__


@pytest.mark.parametrize("method", ["nf4", "int8", "none"])
def test_a_quantised_base_is_as_it_was_after_the_trial(home, tiny_llama, method):
    base = _loaded(home, tiny_llama, method, "bfloat16")
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items() if torch.is_tensor(tensor)}
    assert check_loss(base, _records([21, 5, 34, 13])).path == LossPath()
    assert base.is_unchanged
    for name, tensor in base.model.state_dict().items():
        if torch.is_tensor(tensor):
            assert torch.equal(tensor, before[name]), name


def test_padded_batches_are_answered_as_before_while_flat_ones_are_served(home, tiny_llama):
    base = _loaded(home, tiny_llama)
    padded = PADDED.collator(0)
    records = _records([12, 30])
    batch = {name: value for name, value in padded(records).items() if name in ("input_ids", "attention_mask")}
    before = base.model(**batch).logits
    with base.loss_path(LossPath()):
        flat = _log_probs(base, LossPath().collator(0)(records))
        during = base.model(**batch).logits
        compact = _log_probs(base, padded(records))
    assert torch.equal(before, during)
    torch.testing.assert_close(compact, flat, rtol=1e-4, atol=1e-4)


def test_trained_places_are_those_before_labeled_tokens():
    batch = {"labels": torch.tensor([[-100, -100, 7, 8], [-100, 5, -100, -100]])}
    add_trained_positions(batch)
    assert batch["trained_positions"].tolist() == [1, 2, 4]
    assert batch["shift_labels"].tolist() == [[7, 8, 5]]


@pytest.mark.parametrize("changes", [{}, {"training.gradient_accumulation_steps": 2}, {"data.packing": True}])
def test_the_fullest_micro_batch_is_known_before_it_comes(home, recipe, changes, monkeypatch):
    """The peak that a run predicts is for the tokens it will really be fed at once."""
    from tests.engine.runs_of_tiny import begin, ended, events_of
    from workbench.engine.metrics.step_clock import StepClock
    from workbench.recipe.text import edit

    fed = []
    counted = StepClock.add_batch
    monkeypatch.setattr(
        StepClock, "add_batch", lambda clock, batch: (fed.append(sum(batch.lengths)), counted(clock, batch))
    )
    recipe = edit(recipe, {**changes, "training.per_device_train_batch_size": 3})
    run, thread = begin(home, recipe)
    trainer_of = ended(thread)
    assert trainer_of.error is None
    (preparing,) = [event for event in events_of(run, "phase") if event["phase"] == "preparing"]
    assert preparing["padding_free"]
    assert preparing["predicted"]["length"] == -(-max(fed) // 3)


def test_the_losses_are_those_that_trl_has_by_itself(home, recipe, tmp_path):
    """TRL's own trainer, loss and padded batches on the same tokens in the same order, in float32."""
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from tests.engine.runs_of_tiny import begin, curve, ended, trl_settings
    from workbench.data.sources import load_records
    from workbench.data.templates.template import Template
    from workbench.data.tokens.encode import encode_dataset
    from workbench.recipe.text import edit

    changes = {"quantization.method": "none", "quantization.compute_dtype": "float32", "data.eval_fraction": 0.0}
    recipe = edit(recipe, {**changes, "training.gradient_accumulation_steps": 2})
    run, thread = begin(home, recipe)
    ended(thread)

    tokenizer = AutoTokenizer.from_pretrained(recipe.model.source)
    data = encode_dataset(load_records(recipe.data, home), Template.for_model(tokenizer, "auto", None), recipe.data)
    model = AutoModelForCausalLM.from_pretrained(recipe.model.source, dtype=torch.float32).requires_grad_(False)
    torch.manual_seed(recipe.training.seed)
    model = get_peft_model(model, peft_config(recipe.adapter))
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**trl_settings(recipe, tmp_path / "trl")),
        train_dataset=Dataset.from_list([dict(row) for row in data.train]),
        processing_class=tokenizer,
    )
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert list(curve(run).values()) == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma 3", "qwen3 moe"])
def test_an_evaluation_without_padding_has_the_figures_of_one_with(home, tmp_path, name):
    """Record by record, also of one in which nothing is trained."""
    import transformers

    kind, settings = ARCHITECTURES[name]
    base = _loaded(home, make_tiny_model(tmp_path / "model", getattr(transformers, kind), **settings))
    records = _records([21, 5, 34, 13, 2, 8])
    before = base.model.config._attn_implementation

    def told(padded, batch):
        return record_losses(
            base, records, batch, lambda progress: None, lambda: False, path=PADDED if padded else LossPath()
        )

    padded = told(True, 3)
    for batch in (1, 3):
        flat = told(False, batch)
        assert [one.tokens for one in flat] == [one.tokens for one in padded] == [19, 3, 32, 11, 0, 6]
        assert [one.loss for one in flat] == pytest.approx([one.loss for one in padded], rel=1e-4)
        assert [one.correct for one in flat] == [one.correct for one in padded]
    assert base.model.config._attn_implementation == before
    assert "forward" not in base.model.__dict__


def test_a_run_that_trains_without_padding_evaluates_without_it(home, recipe, monkeypatch):
    from tests.engine.runs_of_tiny import begin, ended, events_of
    from workbench.engine.generation import evaluation
    from workbench.recipe.text import edit

    rows = []
    forward = evaluation.forward
    monkeypatch.setattr(
        evaluation,
        "forward",
        lambda base, inputs: (rows.append(len(inputs["input_ids"])), forward(base, inputs))[1],
    )
    run, thread = begin(home, edit(recipe, {"data.eval_fraction": 0.3, "training.eval_steps": 4}))
    assert ended(thread).error is None
    assert len(events_of(run, "eval")) == 3
    assert set(rows) == {1}
    assert events_of(run, "step")[-1]["loss"] < events_of(run, "step")[0]["loss"]


def _kernel_of_a_gpu(
    query, key, value, starts, key_starts, longest, longest_key, *, scale, window_size, enable_gqa=False
):
    """What PyTorch's ``varlen_attn`` computes on a GPU, by its documentation, and what it insists on."""
    from itertools import pairwise

    assert starts.dtype == torch.int32
    assert key_starts is starts
    assert longest == longest_key == max(starts.diff().tolist())
    assert len({states.shape[-1] for states in (query, key, value)}) == 1
    assert enable_gqa == (query.shape[1] != key.shape[1])
    assert all(states.is_contiguous() for states in (query, key, value))
    left, right = window_size
    rows = []
    for start, end in pairwise(starts.tolist()):
        place = torch.arange(end - start)
        ahead = place[None, :] - place[:, None]
        seen = (ahead <= right) & ((ahead >= -left) | torch.tensor(left < 0))
        record = [states[start:end].transpose(0, 1)[None] for states in (query, key, value)]
        out = torch.nn.functional.scaled_dot_product_attention(
            *record, attn_mask=seen, scale=scale, enable_gqa=enable_gqa
        )
        rows.append(out[0].transpose(0, 1))
    return torch.cat(rows)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"window": 1},
        {"window": 4},
        {"key_heads": 2},
        # Latent attention: values narrower than keys.
        {"value_width": 16},
    ],
)
def test_the_kernel_of_a_gpu_is_asked_for_what_each_record_computes_alone(sizes, monkeypatch):
    from types import SimpleNamespace

    from torch.nn.attention import varlen

    from workbench.engine.kernels import padding_free

    settings = {"window": None, "key_heads": 4, "value_width": 32} | sizes
    window, key_heads = settings["window"], settings["key_heads"]
    monkeypatch.setattr(varlen, "varlen_attn", _kernel_of_a_gpu)
    padding_free._asks_for_shared_heads.cache_clear()
    lengths = (5, 12, 3)
    row = padding_free._Row(torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32), max(lengths))
    monkeypatch.setattr(padding_free._Row, "current", row)
    torch.manual_seed(0)
    widths = ((4, 32), (key_heads, 32), (key_heads, settings["value_width"]))
    states = [torch.randn(1, heads, sum(lengths), width).to(torch.bfloat16) for heads, width in widths]
    of_kernel = padding_free._varlen_attention(*states, row, 0.3, window)
    module = SimpleNamespace(num_key_value_groups=4 // key_heads, is_causal=True, training=True)
    by_record, _ = padding_free.per_record_attention(module, *states, scaling=0.3, sliding_window=window)
    assert of_kernel.shape == by_record.shape == (1, sum(lengths), 4, settings["value_width"])
    torch.testing.assert_close(of_kernel, by_record, rtol=0.02, atol=0.02)
    padding_free._asks_for_shared_heads.cache_clear()


@pytest.mark.parametrize(
    ("dtype", "width", "value_width", "why"),
    [
        (torch.float32, 64, 64, "does not compute in torch.float32"),
        (torch.bfloat16, 512, 512, "no heads of 512 values"),
        (torch.bfloat16, 36, 36, "no heads of 36 values"),
        (torch.bfloat16, 64, 128, "no heads of 64 values and 128"),
    ],
)
def test_heads_that_the_kernel_of_a_gpu_does_not_take_are_named(dtype, width, value_width, why):
    from workbench.engine.kernels import padding_free

    row = padding_free._Row(torch.tensor([0, 4], dtype=torch.int32), 4)
    states = [torch.zeros(1, 2, 4, size, dtype=dtype) for size in (width, width, value_width)]
    with pytest.raises(NotImplementedError, match=why):
        padding_free._varlen_attention(*states, row, None, None)
