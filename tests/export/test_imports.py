"""What files of other tools mean in their tool: objective, defaults that they leave out, data, prompts."""

import json

import pytest

from workbench.data.records.conversation import Conversation
from workbench.data.templates.template import Template
from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported import import_settings
from workbench.export.other_tools.optimizers import our_optimizer
from workbench.export.other_tools.prompt_formats import PromptFormat, alpaca_style
from workbench.models.tokenizers import load_tokenizer
from workbench.recipe.schema import Recipe

AXOLOTL = (
    "base_model: x/y\nadapter: lora\nlearning_rate: 1e-4\nlora_target_linear: true\nexcess_length_strategy: truncate\n"
)
SET = "datasets: [{path: o/set, type: chat_template}]\n"
FACTORY = "model_name_or_path: x/y\ndo_train: true\ndataset_dir: ONLINE\ndataset: o/set\n"


def imported(folder, text):
    file = folder / "theirs.yaml"
    file.write_text(text)
    return import_settings(file)


def check(recipe, expected):
    assert {path: recipe.get(path) for path in expected} == expected


KINDS = {
    "what Axolotl's files leave out": (
        AXOLOTL + SET,
        {
            "adapter.r": 8, "adapter.lora_alpha": 8, "adapter.lora_dropout": 0.0, "data.max_length": 512,
            "data.eval_fraction": 0.0, "training.num_train_epochs": 1.0, "training.effective_batch": 1,
            "training.lr_scheduler_type": "cosine", "training.warmup_ratio": 0.03, "objective.kind": "sft",
            "training.gradient_checkpointing": False, "quantization.method": "none", "training.learning_rate": 1e-4,
        },
        [],
    ),
    "what LLaMA-Factory's files leave out": (
        FACTORY,
        {
            "adapter.r": 8, "adapter.lora_alpha": 16, "adapter.lora_dropout": 0.0, "data.max_length": 2048,
            "adapter.target_modules": "all-linear", "data.eval_fraction": 0.0, "training.num_train_epochs": 3.0,
            "training.per_device_train_batch_size": 8, "training.gradient_accumulation_steps": 1,
            "training.learning_rate": 5e-5, "training.lr_scheduler_type": "linear", "training.warmup_ratio": 0.0,
            "training.gradient_checkpointing": True, "data.packing": False, "objective.kind": "sft",
        },
        [],
    ),
    "a qlora file with a batch and a schedule of its own": (
        AXOLOTL.replace("lora\n", "qlora\n", 1) + SET + "load_in_4bit: true\nbatch_size: 32\nmicro_batch_size: 4\n"
        "cosine_min_lr_ratio: 0.1\nadam_beta2: 0.95\nnoisy_embedding_alpha: 5\nloraplus_lr_ratio: 16\nbf16: true\n"
        "lora_model_dir: earlier\nval_set_size: 0.05\nuse_mlflow: true\n"
        "plugins: [axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin]\n",
        {
            "quantization.method": "nf4", "quantization.compute_dtype": "bfloat16",
            "training.gradient_accumulation_steps": 8, "training.lr_scheduler_type": "cosine_with_min_lr",
            "training.lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "training.adam_beta2": 0.95,
            "training.neftune_noise_alpha": 5, "training.loraplus_lr_ratio": 16, "adapter.continue_from": "earlier",
            "data.eval_fraction": 0.05, "training.report_to": ["mlflow"],
        },
        [],
    ),
    "a number of held-out records, tokens, offloading": (
        AXOLOTL + SET + "val_set_size: 200\nspecial_tokens: {pad_token: <p>, eos_token: <e>}\noptimizer: muon\n"
        "activation_offloading: true\nchat_template: gemma3\nlora_mlp_kernel: true\n"
        "dataset_exact_deduplication: true\n",
        {
            "data.eval_fraction": 0.0, "data.eval_records": 200, "training.optim": "adamw_torch_fused",
            "training.gradient_checkpointing": "offload",
        },
        [
            "optimizer: 'muon'; the recipe has adamw_torch_fused, the nearest one",
            "activation_offloading: True; activations are recomputed, from checkpoints in host memory",
            "chat_template: 'gemma3'; the model's own is used",
            "special_tokens: {'eos_token': '<e>'}; the tokenizer's own are used",
            "dataset_exact_deduplication: True",
        ],
    ),
    "turns spelled otherwise, files of a builder": (
        AXOLOTL + "datasets:\n- path: json\n  data_files: [one.jsonl, two.jsonl]\n  type: chat_template\n"
        "  field_messages: conversations\n  message_property_mappings: {role: from, content: value}\n"
        "  roles: {user: [human], assistant: [gpt]}\n  drop_system_message: true\n",
        {"data.source": "one.jsonl + two.jsonl", "data.columns": {}},
        ["datasets: drop_system_message: True"],
    ),
    "LLaMA-Factory's knobs": (
        FACTORY + "lora_rank: 16\nlora_target: q_proj,v_proj\npissa_init: true\npissa_iter: -1\nuse_dora: true\n"
        "quantization_bit: 4\nmax_samples: 1000\nloraplus_lr_ratio: 16.0\nneftune_noise_alpha: 5\nmask_history: true\n"
        "default_system: Be brief.\nwarmup_steps: 20\nval_size: 0.1\nadapter_name_or_path: saves/one\nreport_to: none\n"
        "lr_scheduler_type: cosine_with_restarts\nlr_scheduler_kwargs: {num_cycles: 2}\noptim: paged_lion_8bit\n"
        "data_seed: 3\nadditional_target: embed_tokens,lm_head\n".replace("quantization_bit: 4\n", ""),
        {
            "adapter.r": 16, "adapter.lora_alpha": 32, "adapter.target_modules": ["q_proj", "v_proj"],
            "adapter.init_lora_weights": "pissa", "adapter.use_dora": True, "data.split": "train[:1000]",
            "training.loraplus_lr_ratio": 16.0, "training.neftune_noise_alpha": 5, "data.responses": "last",
            "data.system": "Be brief.", "training.warmup_steps": 20, "data.eval_fraction": 0.1,
            "adapter.continue_from": "saves/one", "training.report_to": [], "training.optim": "paged_lion_8bit",
            "training.lr_scheduler_kwargs": {"num_cycles": 2}, "training.data_seed": 3,
            "adapter.modules_to_save": ["embed_tokens", "lm_head"],
        },
        [],
    ),
    "a number of held-out records of LLaMA-Factory": (
        FACTORY + "val_size: 50\n", {"data.eval_fraction": 0.0, "data.eval_records": 50}, [],
    ),
    "LLaMA-Factory's knobs of transformers": (
        FACTORY + "save_only_model: true\neval_on_start: true\nlabel_smoothing_factor: 0.1\n"
        "train_sampling_strategy: group_by_length\n",
        {
            "training.save_only_model": True, "training.eval_on_start": True, "objective.label_smoothing": 0.1,
            "training.group_by_length": True, "objective.kind": "sft",
        },
        [],
    ),
    "preferences with knobs of other objectives": (
        FACTORY + "stage: kto\nlabel_smoothing_factor: 0.1\ngroup_by_length: true\n",
        {"objective.kind": "kto", "objective.label_smoothing": 0.0, "training.group_by_length": False},
        [
            "label_smoothing_factor: 0.1; responses that are compared have no targets to smooth",
            "group_by_length: True; kto compares each response with the one before it",
        ],
    ),
    "a rate for embeddings": (
        AXOLOTL + SET + "learning_rate: 2e-4\nembedding_lr_scale: 0.5\ngroup_by_length: true\nsave_only_model: true\n"
        "optimizer: galore_adamw_8bit\nlora_modules_to_save: [embed_tokens, lm_head]\n",
        {
            "training.embedding_learning_rate": 1e-4, "training.group_by_length": True,
            "training.save_only_model": True, "training.optim": "adamw_8bit",
        },
        ["optimizer: 'galore_adamw_8bit'; the recipe has adamw_8bit, the nearest one"],
    ),
    "packed records are not grouped": (
        AXOLOTL + SET + "embedding_lr: 1e-5\nsample_packing: true\ngroup_by_length: true\n",
        {"training.embedding_learning_rate": 1e-5, "training.group_by_length": False, "data.packing": True},
        ["group_by_length: True; packed sequences have one length"],
    ),
    "quantized by another library, packed": (
        FACTORY + "quantization_bit: 3\nquantization_method: hqq\npacking: true\ntemplate: qwen3\n",
        {"quantization.method": "nf4", "data.packing": True},
        [
            "quantization_bit: 3; the recipe has nf4 of bitsandbytes",
            "template: 'qwen3'; the model's own is used",
            "packing: True; records do not see each other here, as with neat_packing there",
        ],
    ),
    "pre-training packs by itself": (
        FACTORY + "stage: pt\n",
        {"data.packing": True, "objective.kind": "sft"},
        ["packing: True; records do not see each other here, as with neat_packing there"],
    ),
    "OFT": (
        FACTORY + "finetuning_type: oft\noft_block_size: 16\noft_target: all\n",
        {"adapter.method": "oft", "adapter.options": {"oft_block_size": 16}, "adapter.target_modules": "all-linear"},
        [],
    ),
    "preferences with noise": (
        FACTORY + "stage: dpo\nneftune_noise_alpha: 5\npref_beta: 0.2\n",
        {"objective.kind": "dpo", "objective.beta": 0.2, "training.neftune_noise_alpha": 0.0},
        ["neftune_noise_alpha: 5; responses that are compared get no noise"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_file_means_what_it_means_in_its_tool(name, tmp_path):
    text, expected, lacking = KINDS[name]
    recipe, unsupported = imported(tmp_path, text)
    assert unsupported == lacking
    effective = expected.pop("training.effective_batch", None)
    check(recipe, expected)
    assert effective in (None, recipe.training.effective_batch)
    assert recipe.data.source != Recipe().data.source


def test_what_axolotl_does_with_longer_records_is_listed(tmp_path):
    _, lacking = imported(tmp_path, AXOLOTL.replace("excess_length_strategy: truncate\n", "") + SET)
    assert lacking == ["excess_length_strategy: 'drop'; records that are longer than sequence_len are truncated here"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base_model: x/y\n" + SET, r"adapter: not set: it trains all weights"),
        (AXOLOTL + SET + "relora: true\n", r"\(relora: True\)"),
        (AXOLOTL + SET + "rl: grpo\n", r"\(rl: 'grpo'\)"),
        (AXOLOTL + SET + "plugins: [axolotl.integrations.kd.KDPlugin]\n", r"\(plugins: axolotl.integrations.kd"),
        (AXOLOTL, r"names no data to train on \(datasets\)"),
        (FACTORY + "stage: ppo\n", r"\(stage: ppo, finetuning_type: lora\)"),
        (FACTORY + "finetuning_type: full\n", r"\(stage: sft, finetuning_type: full\)"),
        (FACTORY + "use_dft_loss: true\n", r"\(use_dft_loss: True\)"),
        ("model_name_or_path: x/y\nexport_dir: merged\n", r"does not train \(export_dir: 'merged'\)"),
        ("model_name_or_path: x/y\ndo_train: true\n", r"names no data to train on \(dataset\)"),
        ("model: x/y\npeft_config: {name: lora}\n", r"of LLaMA-Factory's v1 \(peft_config\)"),
    ],
)
def test_other_training_is_refused_by_the_name_of_its_setting(text, words, tmp_path):
    with pytest.raises(WorkbenchError, match=words):
        imported(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("adamw_bnb_8bit", ("adamw_8bit", True)),
        ("paged_adamw", ("paged_adamw_32bit", True)),
        ("adamw_torch_4bit", ("adamw_8bit", False)),
        ("ao_adamw_fp8", ("adamw_8bit", False)),
        ("flash_lion", ("lion_32bit", False)),
        ("galore_adafactor", ("adafactor", False)),
        ("came_pytorch", ("adafactor", False)),
        ("schedule_free_adamw", ("adamw_torch_fused", False)),
    ],
)
def test_an_optimizer_becomes_the_same_or_the_nearest_one(name, ours):
    assert our_optimizer(name) == ours


ASKED = {"role": "user", "content": "Add.\n\n1 and 2", "instruction": "Add.", "input": "1 and 2"}
SAID = {"role": "assistant", "content": "3"}


@pytest.mark.parametrize(
    ("kind", "with_input", "without"),
    [
        (
            "'alpaca:chat'",
            "SYSTEM: Below is an instruction that describes a task, paired with an input that provides further "
            "context. Write a response that appropriately completes the request.\nUSER: Add.\n1 and 2\nASSISTANT:",
            "SYSTEM: Below is an instruction that describes a task. Write a response that appropriately completes the "
            "request.\nUSER: Hi\nASSISTANT:",
        ),
        (
            "{format: '[INST] {instruction} ({input}) [/INST]', no_input_format: '[INST] {instruction} [/INST]'}",
            "[INST] Add. (1 and 2) [/INST]",
            "[INST] Hi [/INST]",
        ),
        # Axolotl's default of what a file leaves out.
        ("{format: '{input}: {instruction}=', field_output: answer}", "1 and 2: Add.=", "Hi "),
    ],
)
def test_a_dataset_has_the_prompt_of_its_type(kind, with_input, without, tiny_llama, tmp_path):
    text = AXOLOTL + f"chat_template: phi_3\ndatasets: [{{path: o/set, type: {kind}}}]\n"
    recipe, lacking = imported(tmp_path, text)
    assert lacking == []
    template = Template.for_model(load_tokenizer(tiny_llama, False), recipe.data.template)
    end = template.tokenizer.eos_token
    begin = "" if template.tokenizer("a")["input_ids"][0] != template.tokenizer.bos_token_id else "<s>"
    assert template.render([ASKED, SAID]) == f"{begin}{with_input}3{end}"
    assert template.render([{"role": "user", "content": "Hi"}], True) == f"{begin}{without}"
    cut = template.cut(Conversation([ASKED, SAID]))
    assert "".join(piece.text for piece in cut.pieces if piece.reply) == f"3{end}"


def test_a_systems_own_format_is_written():
    template = PromptFormat("{instruction}", "{instruction}", "<<{system}>>").as_template()
    assert '"<<" + message.content + ">>"' in template
    assert alpaca_style("none such") is None


def test_trls_command_line(tmp_path):
    text = (
        "model_name_or_path: x/y\nuse_peft: true\nlora_r: 8\nlora_target_modules: [q_proj]\nload_in_4bit: true\n"
        "dataset_name: o/set\ndataset_config: en\nassistant_only_loss: true\nneftune_noise_alpha: 5\n"
        "warmup_ratio: 0.1\n"
    )
    recipe, lacking = imported(tmp_path, text)
    assert lacking == []
    # The rest is TRL's.
    check(recipe, {
        "adapter.r": 8, "adapter.lora_alpha": 32, "adapter.lora_dropout": 0.05, "adapter.target_modules": ["q_proj"],
        "quantization.method": "nf4", "quantization.double_quant": False, "data.source": "o/set:en",
        "data.max_length": 1024, "data.eval_fraction": 0.0, "training.learning_rate": 2e-5,
        "training.num_train_epochs": 3.0, "training.lr_scheduler_type": "linear", "training.warmup_ratio": 0.1,
        "training.neftune_noise_alpha": 5, "data.completion_only": True,
    })  # fmt: skip
    with pytest.raises(WorkbenchError, match="use_peft is not true"):
        imported(tmp_path, text.replace("use_peft: true", "use_peft: false"))
    recipe, lacking = imported(tmp_path, text.replace("assistant_only_loss: true", "beta: 0.3").replace("neftune", "#"))
    assert (recipe.objective.kind, recipe.objective.beta, recipe.training.learning_rate) == ("dpo", 0.3, 1e-6)
    assert lacking == ["the command says what is trained (trl sft, trl dpo …); by its keys it is dpo"]
    _, lacking = imported(tmp_path, text.replace("assistant_only_loss: true\n", ""))
    assert lacking == ["assistant_only_loss: False; only responses are trained (data.completion_only)"]


def test_an_unsloth_notebook_is_read_and_not_run(tmp_path):
    cells = [
        "%%capture\n!pip install unsloth\n",
        "from unsloth import FastLanguageModel\nmax_seq_length = 4096\n"
        "model, tokenizer = FastLanguageModel.from_pretrained(\n    model_name='x/y', max_seq_length=max_seq_length,\n"
        "    load_in_4bit=True, token=open('/etc/passwd').read())",
        "model = FastLanguageModel.get_peft_model(model, r=32, lora_alpha=64, use_gradient_checkpointing='unsloth',\n"
        "    target_modules=['q_proj', 'v_proj'], use_rslora=False, loftq_config=None)",
        "raise SystemExit\n",
        "dataset = load_dataset('o/set', split='train[:500]')",
        "trainer = SFTTrainer(model=model, args=SFTConfig(per_device_train_batch_size=2, warmup_steps=5,\n"
        "    max_steps=60, learning_rate=2e-4, optim='adamw_8bit', seed=3407, report_to='none',\n"
        "    gradient_accumulation_steps=steps()))",
        "trainer = train_on_responses_only(trainer, instruction_part='<u>', response_part='<a>')",
    ]
    file = tmp_path / "theirs.ipynb"
    notebook = {"cells": [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]}
    file.write_text(json.dumps(notebook))
    recipe, lacking = import_settings(file)
    assert lacking == ["gradient_accumulation_steps: not a literal, so it is not read"]
    check(recipe, {
        "model.source": "x/y", "data.max_length": 4096, "quantization.method": "nf4", "adapter.r": 32,
        "adapter.lora_alpha": 64, "adapter.lora_dropout": 0.0, "adapter.target_modules": ["q_proj", "v_proj"],
        "data.source": "o/set", "data.split": "train[:500]", "training.max_steps": 60, "training.warmup_steps": 5,
        "training.optim": "adamw_8bit", "training.seed": 3407, "training.per_device_train_batch_size": 2,
        "data.completion_only": True, "training.learning_rate": 2e-4,
    })  # fmt: skip
    file.write_text(json.dumps({"cells": []}))
    with pytest.raises(WorkbenchError, match="makes no adapter"):
        import_settings(file)
    file.write_text("[]")
    with pytest.raises(WorkbenchError, match="cannot be read"):
        import_settings(file)


def test_an_adapter_is_a_recipe_that_starts_from_it(tmp_path):
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "x/y", "r": 64, "lora_alpha": 16,
        "lora_dropout": 0.1, "target_modules": ["v_proj", "q_proj"], "bias": "none", "use_rslora": True,
        "init_lora_weights": True, "rank_pattern": {"q_proj": 8}, "layer_replication": [[0, 4]], "revision": None,
    }  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    recipe, lacking = import_settings(tmp_path)
    check(recipe, {
        "model.source": "x/y", "adapter.r": 64, "adapter.lora_alpha": 16, "adapter.use_rslora": True,
        "adapter.target_modules": ["v_proj", "q_proj"], "adapter.rank_pattern": {"q_proj": 8},
        "adapter.continue_from": str(tmp_path),
    })  # fmt: skip
    assert lacking == [
        "layer_replication: [[0, 4]]",
        "an adapter names no data and no training: set data.source, and look through the rest",
    ]
    oft = {"peft_type": "OFT", "base_model_name_or_path": "x/y", "oft_block_size": 64, "target_modules": "all-linear"}
    recipe, _ = imported(tmp_path, json.dumps(oft))
    check(recipe, {"adapter.method": "oft", "adapter.options": {"oft_block_size": 64}})
    for changes, words in (
        ({"peft_type": "PROMPT_TUNING"}, "type PROMPT_TUNING"),
        ({"task_type": "SEQ_CLS"}, "task_type: SEQ_CLS"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path"),
    ):
        with pytest.raises(WorkbenchError, match=words):
            imported(tmp_path, json.dumps({**config, **changes}))
