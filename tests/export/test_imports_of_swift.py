"""What ms-swift's command lines and files of arguments mean in ms-swift, and what of them a recipe does not have."""

import json

import pytest

from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported import import_settings
from workbench.export.other_tools.shell import commands
from workbench.recipe.text import RecipeError

ALWAYS = "truncation_strategy: 'delete'; records that are longer than max_length are truncated here"
HUB = "use_hf: False; names are of ModelScope there; here they are looked up on the Hugging Face hub"


def script(folder, command, *, before=""):
    file = folder / "train.sh"
    file.write_text(f"{before}CUDA_VISIBLE_DEVICES=0 \\\n# a comment\nswift {command}\n")
    return import_settings(file)


def check(recipe, expected):
    assert {path: recipe.get(path) for path in expected} == expected


def test_what_a_command_leaves_out_is_ms_swifts_default(tmp_path):
    recipe, lacking = script(tmp_path, "sft \\\n  --model o/m \\\n  --dataset o/set --use_hf true --max_length 2048")
    assert lacking == [ALWAYS]
    check(recipe, {
        "model.source": "o/m", "data.source": "o/set", "objective.kind": "sft", "quantization.method": "none",
        "adapter.r": 8, "adapter.lora_alpha": 32, "adapter.lora_dropout": 0.05, "adapter.target_modules": "all-linear",
        "data.max_length": 2048, "data.eval_fraction": 0.0, "data.packing": False, "data.completion_only": True,
        "training.num_train_epochs": 3.0, "training.per_device_train_batch_size": 1,
        "training.gradient_accumulation_steps": 16, "training.learning_rate": 1e-4, "training.weight_decay": 0.1,
        "training.adam_beta2": 0.95, "training.lr_scheduler_type": "cosine", "training.warmup_ratio": 0.0,
        "training.gradient_checkpointing": True, "training.max_grad_norm": 1.0, "training.report_to": [],
    })  # fmt: skip


def test_a_command_with_samples_quantization_and_several_gpus(tmp_path):
    command = (
        "sft --model o/m --tuner_type lora --dataset 'o/one:en#500' \\\n  o/two#20 --quant_method bnb \\\n"
        "  --quant_bits 4 --bnb_4bit_quant_type fp4 --system 'You are $nobody.' \\\n"
        "  --target_modules q_proj v_proj --lora_rank 16 \\\n"
        "  --gradient_accumulation_steps $(expr 16 / $gpus) --torch_dtype bfloat16 --neftune_noise_alpha 5 \\\n"
        "  --init_weights pissa_niter_4 --modules_to_save embed_tokens --loss_scale last_round+hermes \\\n"
        "  --lr_scheduler_kwargs '{\"num_cycles\": 2}' --lr_scheduler_type cosine_with_restarts --packing true \\\n"
        "  --truncation_strategy right --max_length 512 --split_dataset_ratio 0.01 --save_steps 40 \\\n"
        "  --deepspeed zero2 --early_stop_interval 3 --adapters earlier --freeze_vit false"
    )
    recipe, lacking = script(tmp_path, command, before="gpus=2\nNPROC_PER_NODE=$gpus ")
    assert lacking == [
        "NPROC_PER_NODE: 2; the recipe's batch is that of one GPU: train on 2, or multiply gradient_accumulation_steps",
        "dataset: ['o/one:en#500', 'o/two#20']; the first so many records are read; ms-swift takes them at random",
        HUB,
        "loss_scale: 'hermes'; all tokens of responses count the same",
        "freeze_vit: False; parts that read images are frozen",
        "init_weights: 'pissa_niter_4'; the recipe has True",
    ]
    assert [entry.model_dump() for entry in recipe.data.source] == [
        {"source": "o/one:en", "weight": 1.0, "split": "train[:500]"},
        {"source": "o/two", "weight": 1.0, "split": "train[:20]"},
    ]
    check(recipe, {
        "data.stopping": "all_exhausted_without_replacement", "quantization.method": "fp4",
        "data.system": "You are $nobody.", "adapter.target_modules": ["q_proj", "v_proj"], "adapter.r": 16,
        "training.gradient_accumulation_steps": 8, "quantization.compute_dtype": "bfloat16", "data.packing": True,
        "training.neftune_noise_alpha": 5, "data.responses": "last",
        "adapter.modules_to_save": ["embed_tokens"], "training.lr_scheduler_kwargs": {"num_cycles": 2},
        "data.eval_fraction": 0.01, "training.eval_steps": 40, "training.early_stopping_patience": 3,
        "adapter.continue_from": "earlier",
    })  # fmt: skip


OBJECTIVES = {
    "--rlhf_type dpo --rpo_alpha 0.1": {"kind": "dpo", "beta": 0.1, "rpo_alpha": 0.1, "loss_type": "sigmoid"},
    "--loss_type ipo --beta 0.3": {"kind": "dpo", "beta": 0.3, "loss_type": "ipo"},
    "--rlhf_type simpo": {"kind": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 1.0},
    "--rlhf_type cpo --loss_type hinge": {"kind": "cpo", "beta": 0.1, "cpo_alpha": 1.0, "loss_type": "hinge"},
    "--rlhf_type orpo --beta 0.2": {"kind": "orpo", "beta": 0.2},
    "--rlhf_type kto --desirable_weight 2 --per_device_train_batch_size 4": {"kind": "kto", "desirable_weight": 2},
    "--rlhf_type rm --center_rewards_coefficient 0.01": {"kind": "reward", "center_rewards_coefficient": 0.01},
}


@pytest.mark.parametrize("options", OBJECTIVES)
def test_preferences_keep_their_objective(options, tmp_path):
    recipe, lacking = script(tmp_path, f"rlhf --model o/m --use_hf true --dataset o/pairs --max_length 9 {options}")
    assert lacking == [ALWAYS]
    assert {key: getattr(recipe.objective, key) for key in OBJECTIVES[options]} == OBJECTIVES[options]
    assert (recipe.data.completion_only, recipe.data.responses) == (True, "all")


def test_pretraining_and_classification(tmp_path):
    recipe, _ = script(tmp_path, "pt --model o/m --dataset o/texts --packing true")
    check(recipe, {"data.completion_only": False, "data.template": "plain", "data.packing": True})
    command = "sft --model o/m --dataset o/texts --task_type seq_cls --num_labels 3 --use_chat_template false"
    recipe, lacking = script(tmp_path, command + ' --columns \'{"kind": "label", "text1": "query"}\'')
    check(recipe, {"objective.kind": "classification", "data.template": "plain"})
    assert recipe.data.columns == {"label": "kind", "prompt": "text1"}
    assert lacking[0] == HUB


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("rlhf --rlhf_type grpo", r"\(rlhf_type: grpo\)"),
        ("rlhf --loss_type sigmoid bco_pair sft", r"\(loss_type: \['sigmoid', 'bco_pair', 'sft'\]\)"),
        ("rlhf --loss_type discopop", r"\(loss_type: discopop\)"),
        ("sft --task_type embedding", r"\(task_type: embedding\)"),
        ("sft --task_type seq_cls --problem_type regression", r"\(problem_type: regression\)"),
        ("sft --task_type seq_cls --num_labels 1", r"\(num_labels: 1\)"),
        ("sft --loss_type mine", r"\(loss_type: 'mine'\)"),
        ("sft --tuner_type full", r"trains all weights \(tuner_type: full\)"),
        ("sft --train_type reft", r"\(tuner_type: reft\)"),
        ("sft --lisa_activated_layers 2", r"\(lisa_activated_layers: 2\)"),
        ("infer", r"no command that trains with ms-swift \(swift infer\)"),
    ],
)
def test_other_training_is_refused_by_the_name_of_its_argument(command, words, tmp_path):
    with pytest.raises(WorkbenchError, match=words):
        script(tmp_path, f"{command} --model o/m --dataset o/set")


def test_a_command_without_data_or_with_a_mistake_is_refused(tmp_path):
    with pytest.raises(WorkbenchError, match=r"names no data to train on \(dataset\)"):
        script(tmp_path, "sft --model o/m")
    with pytest.raises(WorkbenchError, match=r"only ms-swift reads \(cached_dataset: 'tokens'\)"):
        script(tmp_path, "sft --model o/m --cached_dataset tokens")
    with pytest.raises(RecipeError) as error:
        script(tmp_path, "sft --model o/m --dataset o/set --lora_rank none")
    assert [problem.path for problem in error.value.problems] == ["lora_rank"]
    file = tmp_path / "megatron.sh"
    file.write_text("swift export --to_cached_dataset true\nmegatron sft --model o/m\n")
    with pytest.raises(WorkbenchError, match=r"Megatron \(megatron sft\)"):
        import_settings(file)


def test_files_of_arguments_mean_the_same_as_the_command(tmp_path):
    values = {"model": "o/m", "dataset": ["o/set#5"], "tuner_type": "lora", "lora_rank": 4, "max_length": 64,
              "learning_rate": 2e-4, "ENV": {"NPROC_PER_NODE": 4}}  # fmt: skip
    (tmp_path / "args").mkdir()
    (tmp_path / "args/sft.json").write_text(json.dumps(values))
    own, lacking = import_settings(tmp_path / "args/sft.json")
    what = "the command says what is trained (swift sft, swift pt, swift rlhf); by its arguments it is sft"
    assert what in lacking
    check(own, {"data.split": "train[:5]", "training.gradient_accumulation_steps": 4, "adapter.r": 4})
    called, rest = script(tmp_path, "sft args/sft.json")
    assert called == own
    assert [words for words in lacking if words != what] == rest
    recipe, _ = script(tmp_path, "sft args/sft.json --lora_rank 2 --num_train_epochs=5")
    check(recipe, {"adapter.r": 2, "training.num_train_epochs": 5.0, "training.learning_rate": 2e-4})
    with pytest.raises(WorkbenchError, match=r"takes its arguments from none\.yaml, which is not here"):
        script(tmp_path, "sft none.yaml")


def test_a_launcher_before_the_command_is_passed_over(tmp_path):
    file = tmp_path / "train.sh"
    file.write_text(
        'WORDS="over\n# two > lines"\naccelerate launch --config_file x.json swift/cli/_other.py\n'
        "torchrun --nproc_per_node 2 swift/cli/rlhf.py --rlhf_type orpo --model o/m --dataset o/pairs > log 2>&1 &\n"
        "swift infer --adapters output\n"
    )
    recipe, _ = import_settings(file)
    assert (recipe.objective.kind, recipe.data.source) == ("orpo", "o/pairs")


def test_a_script_is_read_and_not_run():
    text = (
        "n=4\nA=1 run --x $(expr 16 / $n / 2) \\\n # no\n --y $((3*2+1)) ${m:-7} $(date) 'a $n' \"b $n\" # c\n"
        "export B='2'\nother $B > out && third; fourth \\\n"
    )
    found = commands(text)
    assert [command.words for command in found] == [
        ("run", "--x", "2", "--y", "7", "7", "$(date)", "a $n", "b 4"),
        ("other", "2"),
        ("third",),
        ("fourth",),
    ]
    assert found[0].environment == {"n": "4", "A": "1"}
    # A quote that stays open is no reason to fail: the words are what they are.
    assert [command.words for command in commands("unclosed 'quote\nrest")] == [("unclosed", "'quote", "rest")]
