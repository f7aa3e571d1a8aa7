"""Recipes as Axolotl's and LLaMA-Factory's, and back; what has no counterpart is listed."""

import json
from pathlib import Path

import pytest
import yaml

from workbench.data.sources import load_records
from workbench.errors import WorkbenchError
from workbench.export.conversations import RecordFile, write_conversations
from workbench.export.other_tools.axolotl import to_axolotl
from workbench.export.other_tools.from_axolotl import from_axolotl
from workbench.export.other_tools.from_llamafactory import from_llamafactory
from workbench.export.other_tools.imported import import_settings
from workbench.export.other_tools.llamafactory import to_llamafactory
from workbench.export.request import Request
from workbench.export.run import export_run
from workbench.recipe.resolved import resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.objective import ObjectiveSection
from workbench.recipe.text import RecipeError, edit, parse

# Without the last two, Axolotl leaves out longer records and names no layers, which is listed.
MODEL = "base_model: x/y\nexcess_length_strategy: truncate\nlora_target_linear: true\n"
FILES = [RecordFile("records.jsonl", "messages", False, 9), RecordFile("records.eval.jsonl", "messages", True, 1)]
BOTH = (
    {},
    {"quantization.method": "none", "adapter.r": 64, "adapter.lora_alpha": 16, "data.packing": True},
    {"quantization.method": "int8", "adapter.target_modules": ["q_proj", "v_proj"], "data.completion_only": False},
    {
        "quantization.method": "fp4",
        "quantization.double_quant": False,
        "training.save_steps": 0,
        "adapter.use_dora": True,
    },
    {"training.max_steps": 50, "training.eval_steps": 10, "training.optim": "paged_adamw_8bit", "training.seed": 7},
    {"training.report_to": ["tensorboard", "wandb"]},
    {"training.kernels": "liger"},
    {"training.eval_steps": 10, "training.save_steps": 20, "training.early_stopping_patience": 3},
    {"training.eval_steps": 10, "training.save_steps": 20, "training.keep": "best", "data.packing": True},
    {"training.report_to": ["trackio"]},
    {"adapter.use_rslora": True, "training.lr_scheduler_type": "linear", "training.gradient_checkpointing": False},
)


def same_but_for_the_place(recipe: Recipe, read: Recipe) -> None:
    """What trains is equal; names of folders are another's affair, and alpha is a number there."""
    left_out = {"model.source", "data.source", "data.eval_fraction", "data.template", "output.name", "output.dir"}
    for section, values in recipe.model_dump().items():
        for name, value in values.items():
            if f"{section}.{name}" not in left_out:
                assert getattr(getattr(read, section), name) == value, f"{section}.{name}"


@pytest.mark.parametrize("changes", BOTH, ids=lambda changes: ",".join(changes) or "defaults")
@pytest.mark.parametrize(("there", "back"), [(to_axolotl, from_axolotl), (to_llamafactory, from_llamafactory)])
def test_a_recipe_comes_back_as_it_went(there, back, changes, tmp_path):
    recipe = edit(resolved(Recipe()), changes)
    values, lacking = there(recipe, "owner/model", FILES)
    assert lacking == []
    # Through a file, as a user's goes.
    for name in ("records.jsonl", "records.eval.jsonl"):
        (tmp_path / name).write_text("{}")
    facts = {file.name.removesuffix(".jsonl"): {"file_name": file.name} for file in FILES}
    (tmp_path / "dataset_info.json").write_text(json.dumps(facts))
    read, unknown = back(yaml.safe_load(yaml.safe_dump(values)), tmp_path, "a file")
    assert unknown == []
    same_but_for_the_place(recipe, read)
    assert read.model.source == "owner/model"
    assert read.data.source == str(tmp_path / "records.jsonl")


@pytest.mark.parametrize("there", [to_axolotl, to_llamafactory])
def test_what_has_no_counterpart_is_listed(there):
    recipe = edit(
        resolved(Recipe()),
        {
            "training.non_finite": "skip",
            "adapter.rank_pattern": {"q_proj": 4},
            "training.early_stopping_min_delta": 0.1,
            "training.kernels": "hub",
        },
    )
    _, lacking = there(recipe, "owner/model", FILES)
    # Axolotl has PEFT's patterns.
    patterns = [] if there is to_axolotl else ["adapter.rank_pattern: {'q_proj': 4}"]
    assert lacking == [
        *patterns,
        "training.kernels: 'hub'",
        "training.early_stopping_min_delta: 0.1",
        "training.non_finite: 'skip'",
    ]


def test_patterns_go_to_axolotl_and_come_back(tmp_path):
    recipe = edit(resolved(Recipe()), {"adapter.rank_pattern": {"q_proj": 4}, "adapter.alpha_pattern": {"q_proj": 8}})
    values, lacking = to_axolotl(recipe, "owner/model", FILES)
    read, _ = from_axolotl(values, tmp_path, "axolotl.yaml")
    assert (read.adapter.rank_pattern, read.adapter.alpha_pattern) == ({"q_proj": 4}, {"q_proj": 8})
    assert lacking == []


@pytest.mark.parametrize("there", [to_axolotl, to_llamafactory])
def test_checkpoints_are_at_evaluations_where_transformers_wants_them_there(there):
    """Axolotl refuses early stopping whose eval_steps do not divide save_steps; transformers refuses the best model."""
    recipe = edit(
        resolved(Recipe()),
        {"training.eval_steps": 20, "training.save_steps": 50, "training.early_stopping_patience": 2},
    )
    values, lacking = there(recipe, "owner/model", FILES)
    assert (values["eval_steps"], values["save_steps"]) == (20, 60)
    assert lacking == ["training.save_steps: 50; 60, a multiple of eval_steps"]


def test_what_llamafactory_wants_said(tmp_path):
    text = [RecordFile("records.jsonl", "text", False, 9)]
    values, _ = to_llamafactory(resolved(Recipe()), "owner/model", text)
    assert values["stage"] == "pt"
    # Its pre-training stage refuses both, even where they are off for the second.
    assert not {"train_on_prompt", "neat_packing"} & set(values)
    recipe = edit(resolved(Recipe()), {"training.eval_steps": 5, "data.template": "chatml", "data.packing": True})
    values, _ = to_llamafactory(recipe, "owner/model", FILES)
    assert (values["eval_strategy"], values["template"], values["neat_packing"]) == ("steps", "chatml", True)


@pytest.mark.parametrize(
    ("there", "back", "key"),
    [(to_axolotl, from_axolotl, "activation_offloading"), (to_llamafactory, from_llamafactory, "use_unsloth_gc")],
)
def test_checkpoints_in_host_memory_go_there_and_come_back(tmp_path, there, back, key):
    recipe = edit(resolved(Recipe()), {"training.gradient_checkpointing": "offload"})
    values, lacking = there(recipe, "owner/model", FILES)
    assert (values[key], lacking) == (True, [])
    assert values.get("gradient_checkpointing", True) is True
    read, _ = back(values, tmp_path, "file.yaml")
    assert read.training.gradient_checkpointing == "offload"


def test_a_warm_up_in_steps_comes_before_a_share(tmp_path):
    text = f"{MODEL}adapter: lora\ndatasets: [{{path: a/b}}]\n"
    file = tmp_path / "axolotl.yaml"
    file.write_text(text + "warmup_steps: 10\nwarmup_ratio: 0.5\n")
    recipe, lacking = import_settings(file)
    assert (recipe.training.warmup_steps, recipe.training.warmup, lacking) == (10, 10, [])
    # Below 1 it is a share, as in transformers.
    file.write_text(text + "warmup_steps: 0.1\n")
    recipe, lacking = import_settings(file)
    assert (recipe.training.warmup_steps, recipe.training.warmup_ratio, lacking) == (0, 0.1, [])


def test_a_configuration_from_the_wild_is_read(tmp_path):
    (tmp_path / "axolotl.yml").write_text(
        """
base_model: NousResearch/Llama-2-7b-hf
model_type: LlamaForCausalLM
tokenizer_type: LlamaTokenizer
load_in_8bit: false
load_in_4bit: true
strict: false
datasets:
  - path: mhenrichsen/alpaca_2k_test
    type: alpaca
dataset_prepared_path:
val_set_size: 0.05
output_dir: ./outputs/qlora-out
adapter: qlora
lora_model_dir:
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules:
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: paged_adamw_32bit
lr_scheduler: cosine
learning_rate: 2e-4
bf16: auto
tf32: false
gradient_checkpointing: true
flash_attention: true
warmup_steps: 10
neftune_noise_alpha: 5
evals_per_epoch: 4
weight_decay: 0.0
plugins:
  - axolotl.integrations.liger.LigerPlugin
  - axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin
liger_rope: true
liger_rms_norm: true
liger_swiglu: true
liger_fused_linear_cross_entropy: true
"""
    )
    recipe, lacking = import_settings(tmp_path / "axolotl.yml")
    assert recipe.model.source == "NousResearch/Llama-2-7b-hf"
    assert recipe.data.source == "mhenrichsen/alpaca_2k_test"
    assert (recipe.adapter.r, recipe.adapter.lora_alpha, recipe.adapter.target_modules) == (32, 16, "all-linear")
    assert recipe.quantization.method == "nf4"
    assert recipe.training.learning_rate == 2e-4
    assert recipe.training.optim == "paged_adamw_32bit"
    assert recipe.data.packing
    assert recipe.data.eval_fraction == 0.05
    assert recipe.training.kernels == "liger"
    assert lacking == [
        "excess_length_strategy: 'drop'; records that are longer than sequence_len are truncated here",
    ]
    assert (recipe.training.warmup_steps, recipe.training.neftune_noise_alpha) == (10, 5)
    # Left out: of Axolotl, not of a recipe.
    assert (recipe.adapter.lora_dropout, recipe.data.template) == (0.05, "alpaca")


def test_llamafactory_from_the_wild_is_read(tmp_path):
    (tmp_path / "lf.yaml").write_text(
        "model_name_or_path: Qwen/Qwen2.5-0.5B\nstage: sft\nfinetuning_type: lora\nlora_target: q_proj, v_proj\n"
        "lora_rank: 8\ndataset: mine,gone\ndataset_dir: data\ntemplate: qwen\ncutoff_len: 2048\nlearning_rate: 1.0e-4\n"
        "num_train_epochs: 3.0\nlora_plus_ratio: 16\nbf16: true\nenable_liger_kernel: true\n"
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}')
    (tmp_path / "data" / "mine.json").write_text("[]")
    recipe, lacking = import_settings(tmp_path / "lf.yaml")
    assert recipe.data.source == f"{tmp_path / 'data' / 'mine.json'} + gone"
    assert recipe.adapter.target_modules == ["q_proj", "v_proj"]
    assert recipe.quantization.method == "none"
    assert recipe.training.kernels == "liger"
    assert lacking == [
        f"'gone' is not in {tmp_path / 'data' / 'dataset_info.json'}",
        "template: 'qwen'; the model's own is used",
        "lora_plus_ratio: 16",
    ]


def test_datasets_of_axolotl_keep_their_splits_columns_and_prompts(tmp_path):
    base = f"{MODEL}adapter: lora\ndatasets:\n"
    file = tmp_path / "axolotl.yml"
    file.write_text(
        base + "  - {path: a/b, name: en, split: validation, type: chat_template, field_messages: talk}\n"
        "  - {path: c/d, type: completion, field: body, shards: 4}\n"
        "  - {path: e/f, type: {field_instruction: ask, field_output: say, format: '[INST] {instruction}'}}\n"
    )
    recipe, lacking = import_settings(file)
    assert recipe.as_dict()["data"]["source"] == [
        {"source": "a/b:en", "weight": 1.0, "split": "validation", "columns": {"messages": "talk"}},
        {"source": "c/d", "weight": 1.0, "columns": {"text": "body"}, "format": "text"},
        {"source": "e/f", "weight": 1.0, "columns": {"prompt": "ask", "reply": "say"}},
    ]
    # Axolotl joins them: each record is used once.
    assert recipe.data.stopping == "all_exhausted_without_replacement"
    assert lacking == [
        "datasets: shards: 4",
        "datasets: a prompt of its own each; the model's own template is used for all",
    ]
    file.write_text(base + "  - {path: a/b, type: alpaca}\n  - {path: c/d, type: alpaca}\n")
    recipe, lacking = import_settings(file)
    assert (recipe.data.source, recipe.data.template, lacking) == ("a/b + c/d", "alpaca", [])


def test_datasets_of_llamafactory_keep_their_entries_and_their_mix(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "dataset_info.json").write_text(
        json.dumps({
            "plain": {"file_name": "plain.json"},
            "named": {"file_name": "named.json", "columns": {"prompt": "ask", "response": "say"}},
            "far": {"hf_hub_url": "owner/set"},
        })
    )  # fmt: skip
    (data / "plain.json").write_text('[{"instruction": "q", "output": "plain"}]')
    (data / "named.json").write_text('[{"ask": "q", "say": "named"}]')
    file = tmp_path / "lf.yaml"
    base = "model_name_or_path: x/y\nstage: sft\ndataset: plain, named\n"
    file.write_text(base)
    recipe, lacking = import_settings(file)
    plain, named = str(data / "plain.json"), f"{data}/dataset_info.json:named"
    assert (recipe.data.source, lacking) == (f"{plain} + {named}", [])
    assert [item.content.texts[-1] for item in load_records(recipe.data).items()] == ["plain", "named"]
    file.write_text(base + "mix_strategy: interleave_over\ninterleave_probs: 0.75,0.25\n")
    recipe, lacking = import_settings(file)
    assert recipe.as_dict()["data"]["source"] == [
        {"source": plain, "weight": 0.75}, {"source": named, "weight": 0.25},
    ]  # fmt: skip
    assert (recipe.data.stopping, lacking) == ("all_exhausted", [])
    file.write_text("model_name_or_path: x/y\ndataset: far\n")
    assert import_settings(file)[0].data.source == "owner/set"


def test_interleaved_sources_are_exported_in_the_order_of_the_mix(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(f'{{"prompt": "q", "completion": "{name}{number}"}}\n' for number in range(4))
        )
    entries = [{"source": str(tmp_path / "a.jsonl"), "weight": 3}, {"source": str(tmp_path / "b.jsonl")}]
    changes = {"data.source": entries, "data.stopping": "all_exhausted", "data.eval_fraction": 0.0}
    recipe = edit(resolved(Recipe()), changes)
    for there in (to_axolotl, to_llamafactory):
        assert there(recipe, "owner/model", FILES)[1] == []
    write_conversations(None, recipe.data, tmp_path)
    written = [json.loads(line)["messages"][1]["content"] for line in (tmp_path / "records.jsonl").open()]
    assert written == [item.content.texts[1] for item in load_records(recipe.data).items()]
    assert {"a0", "b3"} <= {*written}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("base_model: x/y\nadapter: full\n", "does not train a LoRA adapter"),
        ("base_model: x/y\nadapter: lora\nrl: grpo\n", r"a way that a recipe does not have \(rl: 'grpo'\)"),
        ("base_model: x/y\nadapter: lora\nprocess_reward_model: true\n", "a way that a recipe does not have"),
        ("model_name_or_path: x/y\nstage: ppo\n", "a way that a recipe does not have"),
        ("adapter: {r: 8}\n", "not an Axolotl"),
        ("- a\n- b\n", "has no settings"),
        ("a: !!python/object/apply:os.system ['true']\n", "cannot be read"),
        pytest.param("{" * 4000, "cannot be read", id="deep"),
    ],
)
def test_others_are_refused_in_a_sentence(content, words, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text(content)
    with pytest.raises(WorkbenchError, match=words):
        import_settings(file)


def test_preference_training_is_imported_as_what_it_is(tmp_path):
    (tmp_path / "axolotl.yaml").write_text(
        MODEL + "adapter: lora\nrl: ipo\nrl_beta: 0.3\nsample_packing: true\ntrain_on_inputs: true\n"
        "datasets:\n- {path: o/pairs, split: train_prefs, type: chatml.intel, field_chosen: better}\n"
    )
    recipe, lacking = import_settings(tmp_path / "axolotl.yaml")
    assert recipe.objective == ObjectiveSection(kind="dpo", loss_type="ipo", beta=0.3)
    assert (recipe.data.source, recipe.data.split, recipe.data.template) == ("o/pairs", "train_prefs", "chatml")
    assert recipe.data.columns == {"chosen": "better", "rejected": "rejected"}
    assert recipe.data.completion_only
    assert not recipe.data.packing
    assert lacking == [
        "packing: responses that are compared are not packed",
    ]
    (tmp_path / "llamafactory.yaml").write_text(
        "model_name_or_path: x/y\nstage: dpo\npref_beta: 0.2\npref_loss: hinge\npref_ftx: 0.1\ndataset: pairs\n"
    )
    pair = {"conversations": [{"from": "human", "value": "Hi?"}], "chosen": {"from": "gpt", "value": "Yes."}}
    rows = [{**pair, "rejected": {"from": "gpt", "value": "No."}}]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs.json").write_text(json.dumps(rows))
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    entry = {"file_name": "pairs.json", "ranking": True, "formatting": "sharegpt", "columns": columns}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"pairs": entry}))
    recipe, lacking = import_settings(tmp_path / "llamafactory.yaml")
    assert recipe.objective == ObjectiveSection(kind="dpo", loss_type="hinge", beta=0.2, rpo_alpha=0.1)
    assert lacking == []
    (item,) = load_records(recipe.data, kind="pairs").items()
    assert [side.texts for side in (item.content.chosen, item.content.rejected)] == [["Hi?", "Yes."], ["Hi?", "No."]]
    (tmp_path / "llamafactory.yaml").write_text("model_name_or_path: x/y\nstage: dpo\npref_loss: kto_pair\n")
    with pytest.raises(WorkbenchError, match="pref_loss: kto_pair, which a recipe does not have"):
        import_settings(tmp_path / "llamafactory.yaml")


@pytest.mark.parametrize(
    ("content", "expected", "lacking"),
    [
        ("rl: orpo\norpo_alpha: 0.2", {"kind": "orpo", "beta": 0.2}, ""),
        (
            "rl: kto\nrl_beta: 0.3\nkto_undesirable_weight: 0.2\nmicro_batch_size: 1",
            {"kind": "kto", "beta": 0.3, "undesirable_weight": 0.2},
            "micro_batch_size: 1; kto compares the responses of a micro-batch: 2 × 2",
        ),
        # What a file leaves out is the default of its tool, not the one here.
        (
            "rl: simpo\nsimpo_gamma: 0.7",
            {"kind": "simpo", "beta": 0.1, "cpo_alpha": 1.0, "simpo_gamma": 0.7},
            "",
        ),
        (
            "model_name_or_path: x/y\nstage: dpo\npref_loss: orpo\npref_beta: 0.05",
            {"kind": "orpo", "beta": 0.05},
            "LLaMA-Factory's ORPO learns the chosen response only, TRL's and this one its prompt too",
        ),
        ("model_name_or_path: x/y\nstage: dpo\npref_loss: simpo", {"kind": "simpo", "beta": 0.1}, ""),
        (
            "model_name_or_path: x/y\nstage: kto\nkto_chosen_weight: 1.2",
            {"kind": "kto", "desirable_weight": 1.2},
            "",
        ),
    ],
)
def test_each_objective_is_imported_with_its_settings(content, expected, lacking, tmp_path):
    is_axolotl = content.startswith("rl:")
    data = "dataset: some"
    if is_axolotl:
        data = f"datasets: [{{path: o/some, field_label: good}}]\nadapter: lora\n{MODEL}"
    (tmp_path / "other.yaml").write_text(f"{content}\n{data}\ngradient_accumulation_steps: 4\n")
    recipe, unsupported = import_settings(tmp_path / "other.yaml")
    assert recipe.objective == ObjectiveSection(**expected)
    assert [words for words in unsupported if "is not in" not in words] == ([lacking] if lacking else [])
    if is_axolotl and expected["kind"] == "kto":
        assert recipe.data.columns == {"prompt": "prompt", "reply": "completion", "label": "good"}
        assert recipe.training.effective_batch == 4


def test_values_that_no_recipe_can_have_are_all_told(tmp_path):
    file = tmp_path / "axolotl.yaml"
    file.write_text("base_model: x/y\nadapter: lora\nlora_r: many\nmicro_batch_size: 0\noptimizer: lion_8bit\n")
    with pytest.raises(RecipeError) as caught:
        import_settings(file)
    assert {problem.path for problem in caught.value.problems} == {"lora_r", "micro_batch_size"}


def test_a_choice_that_no_recipe_has_is_listed_with_what_the_recipe_has_instead(tmp_path):
    file = tmp_path / "axolotl.yaml"
    file.write_text(
        MODEL + "adapter: lora\nlora_r: 8\noptimizer: adamw_torch_8bit\nlr_scheduler: one_cycle\n"
        "datasets: [{path: a/b}]\n"
    )
    recipe, lacking = import_settings(file)
    assert (recipe.adapter.r, recipe.training.optim) == (8, "adamw_8bit")
    assert lacking == [
        "optimizer: 'adamw_torch_8bit'; torchao is not installed, so the recipe has adamw_8bit, the nearest one",
        f"lr_scheduler: 'one_cycle'; the recipe has {Recipe().training.lr_scheduler_type}",
    ]


@pytest.mark.parametrize(
    ("datasets", "shape", "template", "columns", "listed"),
    [
        ("[{path: a/b, type: alpaca}]", "instruction", "alpaca", None, []),
        ("[{path: a/b, type: chat_template}]", "auto", "auto", None, []),
        ("[{path: a/b, type: completion, field: body}]", "text", "auto", {"text": "body"}, []),
        ("[{path: a/b, type: input_output}]", "segments", "auto", None, []),
        (
            "[{path: a/b, type: alpaca}, {path: c/d, type: chat_template}]",
            "auto",
            "auto",
            None,
            [
                "datasets: a prompt of its own each; the model's own template is used for all",
                "datasets: a type of its own each; the formats are recognized from the records",
            ],
        ),
        (
            "[{path: a/b, type: context_qa.load_v2}]",
            "auto",
            "auto",
            None,
            ["datasets: type: 'context_qa.load_v2'; the format is recognized from the records"],
        ),
    ],
)
def test_the_type_of_an_axolotl_dataset_is_used_or_listed(tmp_path, datasets, shape, template, columns, listed):
    file = tmp_path / "axolotl.yaml"
    file.write_text(f"{MODEL}adapter: lora\ndatasets: {datasets}\n")
    recipe, lacking = import_settings(file)
    assert (recipe.data.format, recipe.data.template, recipe.data.columns or None) == (shape, template, columns)
    assert lacking == listed


def test_data_that_is_not_found_is_never_replaced_by_the_bundled_set(tmp_path, monkeypatch):
    """LLaMA-Factory's own examples lie two folders below the one that its ``data`` folder is in."""
    examples = tmp_path / "examples" / "train_lora"
    examples.mkdir(parents=True)
    file = examples / "lf.yaml"
    text = "model_name_or_path: x/y\nstage: sft\nfinetuning_type: lora\n"
    file.write_text(text + "dataset: identity\n")
    recipe, lacking = import_settings(file)
    assert (recipe.data.source, lacking) == (
        "identity",
        [f"'identity' is not in {examples / 'data' / 'dataset_info.json'}"],
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text('{"identity": {"file_name": "identity.json"}}')
    (tmp_path / "data" / "identity.json").write_text("[]")
    recipe, lacking = import_settings(file)
    assert (recipe.data.source, lacking) == (str(tmp_path / "data" / "identity.json"), [])
    file.write_text(text)
    with pytest.raises(WorkbenchError, match=r"names no data to train on \(dataset\)"):
        import_settings(file)
    file.write_text(MODEL + "adapter: lora\npretraining_dataset: [{path: owner/books, text_column: body}]\n")
    recipe, lacking = import_settings(file)
    assert (recipe.data.source, recipe.data.format, recipe.data.columns) == ("owner/books", "text", {"text": "body"})
    assert lacking == []


@pytest.mark.usefixtures("export_here")
def test_the_records_beside_it_are_those_of_the_run(tiny_home, tiny_run, tmp_path):
    """Written, imported, and read again: the same conversations are trained on, and the same are held out."""
    for target, name in (("axolotl", "axolotl.yaml"), ("llamafactory", "llamafactory.yaml")):
        folder = tmp_path / target
        export_run(tiny_home, tiny_run, Request(target, folder), lambda told: None, bool)
        recipe, lacking = import_settings(folder / name)
        assert lacking == []
        run = tiny_run.recipe()
        wanted = [(item.content, item.held_out) for item in load_records(run.data).items()]
        found = [(item.content, item.held_out) for item in load_records(recipe.data).items()]
        assert [content for content, held_out in found if not held_out] == [c for c, held in wanted if not held]
        assert [content for content, held_out in found if held_out] == [c for c, held in wanted if held]
        same_but_for_the_place(run, recipe)


def test_plain_text_and_system_prompts_are_written_as_such(tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "Once upon a time."}\n{"text": "There was a ship."}\n')
    data = parse({"data": {"source": f"{text} + first-mate", "system": "Be brief.", "eval_fraction": 0.0}}).data
    files = write_conversations(None, data, Path(tmp_path))
    assert {(file.kind, file.held_out) for file in files} >= {("text", False), ("messages", False)}
    assert json.loads((tmp_path / "records-text.jsonl").read_text().splitlines()[0]) == {"text": "Once upon a time."}
    first = json.loads((tmp_path / "records.jsonl").read_text().splitlines()[0])
    assert first["messages"][0] == {"role": "system", "content": "Be brief."}
