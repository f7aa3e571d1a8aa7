"""What torchtune's configurations mean in torchtune, and what of them a recipe does not have."""

import pytest
import yaml

from workbench.data.records.conversation import Conversation
from workbench.data.templates.template import Template
from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported import import_settings
from workbench.models.tokenizers import load_tokenizer

LONG = "tokenizer.max_seq_len: None; nothing is cut there; the recipe cuts at 8192 tokens"


def written(**changes):
    values = {
        "output_dir": "/tmp/out",
        "model": {
            "_component_": "torchtune.models.llama3_1.lora_llama3_1_8b",
            "lora_attn_modules": ["q_proj", "output_proj"],
        },
        "tokenizer": {"_component_": "torchtune.models.llama3.llama3_tokenizer", "path": "t", "max_seq_len": 512},
        "checkpointer": {"_component_": "c", "checkpoint_dir": "/none/Llama-8B", "output_dir": "${output_dir}"},
        "dataset": {"_component_": "torchtune.datasets.alpaca_dataset"},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            values[section] = {**values.get(section, {}), name: value}
        else:
            values[section] = value
    return values


def imported(folder, comment="", **changes):
    file = folder / "theirs.yaml"
    file.write_text(f"# {comment}\n" + yaml.safe_dump(written(**changes)))
    return import_settings(file)


def check(recipe, expected):
    assert {path: recipe.get(path) for path in expected} == expected


def test_what_a_file_leaves_out_is_torchtunes_default(tmp_path):
    recipe, lacking = imported(tmp_path)
    assert lacking == []
    check(recipe, {
        "model.source": "/none/Llama-8B", "quantization.method": "none", "quantization.compute_dtype": "bfloat16",
        "adapter.r": 8, "adapter.lora_alpha": 16, "adapter.lora_dropout": 0.0,
        "adapter.target_modules": ["q_proj", "o_proj"], "data.source": "tatsu-lab/alpaca",
        # In its Alpaca sets, prompts are trained too.
        "data.completion_only": False, "data.format": "instruction", "data.max_length": 512, "data.eval_fraction": 0.0,
        "objective.kind": "sft", "training.learning_rate": 1e-3, "training.weight_decay": 0.01,
        "training.lr_scheduler_type": "constant", "training.max_grad_norm": 0.0, "training.num_train_epochs": 1.0,
        "training.per_device_train_batch_size": 1, "training.gradient_checkpointing": False,
        "training.optim": "adamw_torch_fused",
    })  # fmt: skip


def test_a_qlora_file_with_a_schedule_and_a_held_out_part(tmp_path):
    recipe, lacking = imported(
        tmp_path,
        "  tune download meta/Llama-8B-Instruct --output-dir /none/Llama-8B --ignore-patterns x",
        model={
            "_component_": "torchtune.models.llama3_1.qlora_llama3_1_8b", "lora_attn_modules": ["q_proj"],
            "apply_lora_to_mlp": True, "apply_lora_to_output": True, "lora_rank": 64, "lora_alpha": 128,
            "use_dora": True,
        },
        tokenizer__max_seq_len=None,
        dataset={"_component_": "torchtune.datasets.chat_dataset", "source": "o/set", "split": "train[:95%]",
                 "conversation_column": "talk", "conversation_style": "sharegpt", "packed": False},
        dataset_val={"_component_": "torchtune.datasets.chat_dataset", "source": "o/set", "split": "train[95%:]",
                     "conversation_column": "talk", "conversation_style": "sharegpt", "packed": False},
        run_val_every_n_steps=50, batch_size=4, batch_size_val="${batch_size}", epochs=2, max_steps_per_epoch=30,
        gradient_accumulation_steps=8, seed=7, clip_grad_norm=1.0, compile=True, shuffle=False,
        optimizer={"_component_": "bitsandbytes.optim.PagedAdamW8bit", "lr": "2e-4", "betas": [0.9, 0.95]},
        lr_scheduler={"_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
                      "num_warmup_steps": 10},
        metric_logger={"_component_": "torchtune.training.metric_logging.WandBLogger", "project": "p"},
        enable_activation_checkpointing=True, enable_activation_offloading=True, profiler={"enabled": False},
    )  # fmt: skip
    assert lacking == [
        "checkpointer.checkpoint_dir: '/none/Llama-8B'; it is not here; the recipe has meta/Llama-8B-Instruct, which "
        "is downloaded there",
        "max_steps_per_epoch: 30; 60 steps, in the order of whole epochs",
        "shuffle: False; records are in random order",
        "enable_activation_offloading: True; activations are kept on the GPU",
        "dataset_val.split: 'train[95%:]'; 0.05 of the records, from all over the set",
        LONG,
    ]
    check(recipe, {
        "model.source": "meta/Llama-8B-Instruct", "quantization.method": "nf4", "adapter.r": 64,
        "adapter.use_dora": True,
        "adapter.target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj", "lm_head"],
        "data.source": "o/set", "data.columns": {"messages": "talk"}, "data.format": "sharegpt", "data.split": "train",
        "data.eval_fraction": 0.05, "data.completion_only": True, "training.eval_steps": 50, "training.max_steps": 60,
        "training.optim": "paged_adamw_8bit", "training.learning_rate": 2e-4, "training.adam_beta2": 0.95,
        "training.lr_scheduler_type": "cosine", "training.warmup_steps": 10, "training.report_to": ["wandb"],
        "training.seed": 7, "training.max_grad_norm": 1.0, "training.torch_compile": True,
        "training.gradient_accumulation_steps": 8, "training.per_device_train_batch_size": 4,
    })  # fmt: skip


def test_pairs_and_several_sets(tmp_path):
    (tmp_path / "pairs.json").write_text("[]")
    recipe, lacking = imported(
        tmp_path,
        loss={"_component_": "torchtune.rlhf.loss.RSOLoss", "gamma": 0.2},
        dataset=[
            {"_component_": "torchtune.datasets.preference_dataset", "source": "json", "data_files": "pairs.json"},
            {"_component_": "torchtune.datasets.stack_exchange_paired_dataset"},
        ],
    )
    check(recipe, {"objective.kind": "dpo", "objective.loss_type": "hinge", "objective.beta": 0.2})
    assert [entry.model_dump() for entry in recipe.data.source] == [
        {"source": str(tmp_path / "pairs.json"), "weight": 1.0},
        {
            "source": "lvwerra/stack-exchange-paired",
            "weight": 1.0,
            "columns": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"},
        },
    ]
    assert lacking == [
        "dataset.data_dir: 'data/rl'; a folder of the repository cannot be chosen; download it, and name it"
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model___component_": "torchtune.models.llama3_1.llama3_1_8b"}, r"\(model\._component_: torchtune"),
        ({"model__decoder_trainable": "frozen"}, r"\(model\.decoder_trainable: 'frozen'\)"),
        ({"quantizer___component_": "q"}, r"\(quantizer\._component_: 'q'\)"),
        ({"teacher_model___component_": "t"}, r"\(teacher_model\._component_: 't'\)"),
        ({"datasets": [{"source": "o/set"}]}, r"\(datasets: "),
        ({"loss___component_": "torchtune.rlhf.loss.Other"}, r"\(loss\._component_: torchtune.rlhf.loss.Other\)"),
        ({"dataset___component_": "torchtune.datasets.multimodal.x"}, r"\(dataset\._component_: torchtune"),
        ({"dataset": None}, r"names no data to train on \(dataset\)"),
    ],
)
def test_other_training_is_refused_by_its_key(changes, words, tmp_path):
    with pytest.raises(WorkbenchError, match=words):
        imported(tmp_path, **changes)


def test_layers_that_the_hubs_model_joins_are_named(tmp_path):
    model = {"_component_": "torchtune.models.phi3.lora_phi3_mini", "lora_attn_modules": ["q_proj", "v_proj"],
             "apply_lora_to_mlp": True}  # fmt: skip
    recipe, lacking = imported(tmp_path, model=model)
    assert recipe.adapter.target_modules == ["qkv_proj", "gate_up_proj", "down_proj"]
    assert lacking == [
        "model.lora_attn_modules: ['q_proj', 'v_proj']; the hub's model joins layers: qkv_proj, gate_up_proj, down_proj"
    ]


TASK = "Below is an instruction that describes a task"
RESPOND = ". Write a response that appropriately completes the request.\n\n### Instruction:\n"
ASKED = {"role": "user", "content": "Add.\n\n1 and 2", "instruction": "Add.", "input": "1 and 2"}
SAID = {"role": "assistant", "content": "3"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            f"BOS<|start_header_id|>user<|end_header_id|>\n\n{TASK}, paired with an input that provides further context"
            f"{RESPOND}Add.\n\n### Input:\n1 and 2\n\n### Response:<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n3<|eot_id|>",
        ),
        (
            {
                "tokenizer___component_": "torchtune.models.qwen2_5.qwen2_5_tokenizer",
                "dataset___component_": "torchtune.datasets.chat_dataset",
            },
            "<|im_start|>user\nAdd.\n\n1 and 2<|im_end|>\n<|im_start|>assistant\n3<|im_end|>",
        ),
        (
            {
                "tokenizer___component_": "torchtune.models.gemma.gemma_tokenizer",
                "tokenizer__prompt_template": "torchtune.data.SummarizeTemplate",
                "dataset___component_": "torchtune.datasets.chat_dataset",
            },
            "BOSSummarize this dialogue:\nAdd.\n\n1 and 2\n---\nSummary:\n3EOS",
        ),
        (
            {
                "tokenizer___component_": "torchtune.models.llama2.llama2_tokenizer",
                "dataset___component_": "torchtune.datasets.chat_dataset",
            },
            "BOS[INST] Add.\n\n1 and 2 [/INST] 3EOS",
        ),
        (
            # A template replaces the one that the tokenizer has by itself.
            {
                "tokenizer___component_": "torchtune.models.mistral.mistral_tokenizer",
                "tokenizer__prompt_template": {"user": ["Q: ", "\n"], "assistant": ["A: ", ""]},
                "dataset___component_": "torchtune.datasets.chat_dataset",
            },
            "BOSQ: Add.\n\n1 and 2\nA: 3EOS",
        ),
    ],
)
def test_records_have_the_text_of_torchtunes_tokenizer(changes, expected, tiny_llama, tmp_path):
    recipe, lacking = imported(tmp_path, **changes)
    assert lacking == []
    template = Template.for_model(load_tokenizer(tiny_llama, False), recipe.data.template)
    own = template.tokenizer
    begin = "" if own("a")["input_ids"][0] != own.bos_token_id else own.bos_token
    text = expected.replace("BOS", begin).replace("EOS", own.eos_token)
    assert template.render([ASKED, SAID]) == text
    prompt = template.render([{"role": "user", "content": "Hi"}], True)
    assert template.render([{"role": "user", "content": "Hi"}, SAID]).startswith(prompt)
    reply = "".join(piece.text for piece in template.cut(Conversation([ASKED, SAID])).pieces if piece.reply)
    assert reply.startswith("3")
    assert text.endswith(reply)


def test_a_reference_is_filled_in_and_a_set_of_texts_needs_no_template(tmp_path):
    dataset = {"_component_": "torchtune.datasets.text_completion_dataset", "source": "o/texts", "column": "page"}
    recipe, lacking = imported(tmp_path, dataset=dataset, epochs="${times}", times=3, base="${none}")
    check(recipe, {"data.template": "auto", "data.format": "text", "training.num_train_epochs": 3.0})
    assert recipe.data.columns == {"text": "page"}
    assert lacking == ["base: '${none}'"]
