"""Exports of a tiny run: adapter, merged, GGUF, Ollama, servers. By helper processes: see test_export_command.py."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.export.conftest import tiny_recipe, train
from workbench.errors import WorkbenchError
from workbench.export import plan
from workbench.export.plan import plan_export
from workbench.export.request import Request
from workbench.export.run import export_run
from workbench.progress import Progress
from workbench.recipe.text import edit, to_yaml
from workbench.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures("export_here")
PROMPT = [[1, 20, 33, 45, 7, 99, 12], [1, 301, 14, 260]]


def made(home, run, target, folder, **options):
    told: list[Progress] = []
    result = export_run(home, run, Request(target, folder, **options), told.append, bool)
    assert told, "progress is told"
    return result


def answers(model):
    import torch

    with torch.inference_mode():
        return [model(input_ids=torch.tensor([ids])).logits[0].float() for ids in PROMPT]


def tuned(tiny_llama, run):
    """The unmerged pair, by transformers and PEFT alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)
    return PeftModel.from_pretrained(base, run.adapter).eval()


def agree(first, second):
    """Divergence of the two in nats, over all positions."""
    import torch

    one, other = torch.cat(first).log_softmax(-1), torch.cat(second).log_softmax(-1)
    return (one.exp() * (one - other)).sum(-1).mean().item()


def test_adapter_is_a_peft_folder_with_template_and_card(tiny_home, tiny_run, tiny_llama, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = made(tiny_home, tiny_run, "adapter", tmp_path / "out")
    names = {name for name, _ in result.files}
    assert {"adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "README.md"} <= names
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), tmp_path / "out")
    assert model.peft_config["default"].r == 8
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n"


def test_merged_answers_as_base_and_adapter_do(tiny_home, tiny_run, tiny_llama, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    result = made(tiny_home, tiny_run, "merged", tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert merged.dtype == torch.bfloat16
    pair, base = answers(tuned(tiny_llama, tiny_run)), answers(AutoModelForCausalLM.from_pretrained(tiny_llama).eval())
    assert agree(pair, answers(merged)) < 0.02 * agree(pair, base), "next to the adapter's effect it is nothing"
    figures = result.figures
    assert figures["read_back_against_merged"]["largest"] == 0.0
    assert 0 < figures["merged_against_unmerged"]["divergence"] < 0.02
    assert "Merged vs. base with adapter" in result.check
    assert any("nf4" in notice for notice in result.notices), "the base was another one in training, which is told"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "KL divergence" in card
    assert merged.generation_config.eos_token_id == 2


@pytest.mark.parametrize(("kind", "most"), [("f16", 0.002), ("q8_0", 0.02)])
def test_gguf_answers_as_base_and_adapter_do(tiny_home, tiny_run, tiny_llama, tmp_path, kind, most):
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    made(tiny_home, tiny_run, "gguf", tmp_path / "out", type=kind)
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out",
        gguf_file=f"{tiny_run.id}-{kind}.gguf",
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    ).eval()
    assert agree(answers(tuned(tiny_llama, tiny_run)), answers(read)) < most


def test_ollama_gets_the_template_and_what_ends_a_reply(tiny_home, tiny_run, tmp_path):
    result = made(tiny_home, tiny_run, "ollama", tmp_path / "out")
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\nTEMPLATE ")
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert result.command == f"ollama create {tiny_run.id} -f Modelfile"
    assert not any("Ollama" in notice for notice in result.notices)


def test_vllm_gets_the_base_and_the_adapter(tiny_home, tiny_run, tiny_llama, tmp_path):
    result = made(tiny_home, tiny_run, "vllm", tmp_path / "out")
    words = shlex.split(result.command)
    assert words[:3] == ["vllm", "serve", str(tiny_llama)]
    assert words[words.index("--max-lora-rank") + 1] == "8"
    assert words[words.index("--lora-modules") + 1] == f"{tiny_run.id}=./adapter"
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


def test_the_saved_command_runs_in_its_folder_and_takes_more_arguments(tiny_home, tiny_run, tmp_path):
    made(tiny_home, tiny_run, "tgi", tmp_path / "an out", weights="merged")
    tools = tmp_path / "tools"
    tools.mkdir()
    launcher = tools / "text-generation-launcher"
    launcher.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    launcher.chmod(0o755)
    done = subprocess.run(
        [tmp_path / "an out" / "serve.sh", "--port", "8000"],
        capture_output=True, text=True, check=True, env={"PATH": f"{tools}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.splitlines() == [str(tmp_path / "an out"), "--model-id", "./merged", "--port", "8000"]
    assert (tmp_path / "an out" / "merged" / "model.safetensors").is_file()


def test_an_adapter_that_no_server_can_put_on_is_refused_with_the_way_out(tiny_home, tiny_llama, records, tmp_path):
    run = train(
        tiny_home, tiny_recipe(tiny_llama, records, adapter={"r": 4, "use_dora": True}, output={"name": "dora"})
    )
    with pytest.raises(WorkbenchError, match="does not support adapters with adapter") as caught:
        made(tiny_home, run, "vllm", tmp_path / "out")
    assert "merged" in caught.value.cure
    assert not (tmp_path / "out").exists()
    made(tiny_home, run, "vllm", tmp_path / "out", weights="merged")


def test_a_head_trained_whole_is_not_lost(tiny_home, tiny_llama, records, tmp_path):
    from transformers import AutoModelForCausalLM

    recipe = tiny_recipe(
        tiny_llama, records,
        adapter={"r": 4, "modules_to_save": ["lm_head"]}, quantization={"method": "none"}, output={"name": "head"},
    )  # fmt: skip
    run = train(tiny_home, recipe)
    made(tiny_home, run, "merged", tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert agree(answers(tuned(tiny_llama, run)), answers(merged)) < 0.01


# -- places -----------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_without_being_told_to(tiny_home, tiny_run, tmp_path):
    folder = tmp_path / "out"
    made(tiny_home, tiny_run, "adapter", folder)
    before = (folder / "export.json").stat().st_mtime_ns
    with pytest.raises(WorkbenchError, match="contains an earlier export"):
        made(tiny_home, tiny_run, "vllm", folder)
    assert (folder / "export.json").stat().st_mtime_ns == before
    made(tiny_home, tiny_run, "vllm", folder, force=True)
    assert (folder / "serve.sh").is_file()
    assert not (folder / "adapter_model.safetensors").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"], "nothing lies beside it"


def test_a_folder_of_somebody_elses_is_left_alone_whatever_is_asked(tiny_home, tiny_run, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(WorkbenchError, match="no export wrote"):
        made(tiny_home, tiny_run, "adapter", tmp_path, force=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(WorkbenchError, match="is not a folder"):
        made(tiny_home, tiny_run, "adapter", link, force=True)


def test_one_that_is_broken_off_leaves_nothing(tiny_home, tiny_run, tmp_path, monkeypatch):
    monkeypatch.undo()  # in a helper process, which is killed
    phases: list[str] = []

    def is_merging() -> bool:
        return any("adapter" in phase for phase in phases)

    with pytest.raises(WorkbenchError) as caught:
        export_run(
            tiny_home, tiny_run, Request("merged", tmp_path / "out"), lambda told: phases.append(told.phase), is_merging
        )
    assert caught.value.kind == "cancelled"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_made_is_told(tiny_home, tiny_run):
    with pytest.raises(WorkbenchError) as caught:
        made(tiny_home, tiny_run, "adapter", Path("/proc/nowhere/out"))
    assert "/proc/nowhere" in str(caught.value)


def test_a_full_disk_is_told_before_anything_is_written(tiny_home, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda folder: 1000)
    with pytest.raises(WorkbenchError, match="0 MB free") as caught:
        made(tiny_home, tiny_run, "merged", tmp_path / "out")
    assert caught.value.kind == "disk_full"
    assert list(tmp_path.iterdir()) == []


def test_a_plan_tells_the_size_that_is_written(tiny_home, tiny_run, tmp_path):
    for target, options in (("adapter", {}), ("merged", {}), ("gguf", {"type": "q8_0"})):
        request = Request(target, tmp_path / target, **options)
        plan = plan_export(tiny_home, tiny_run, request)
        written = sum(size for _, size in export_run(tiny_home, tiny_run, request, lambda told: None, bool).files)
        assert written <= plan.size <= written + 2_100_000
        assert plan.disk >= plan.size


def test_what_is_missing_is_told(tiny_home, tiny_run, tmp_path):
    empty = RunFolder(tmp_path / "empty-01")
    shutil.copytree(tiny_run.path, empty.path)
    shutil.rmtree(empty.adapter)
    with pytest.raises(WorkbenchError, match="There is no adapter"):
        plan_export(tiny_home, empty, Request("merged", tmp_path / "out"))
    empty.recipe_file.write_text(to_yaml(edit(empty.recipe(), {"model.source": "someone/gone"})))
    shutil.copytree(tiny_run.adapter, empty.adapter)
    with pytest.raises(WorkbenchError, match="someone/gone is not on this machine"):
        plan_export(tiny_home, empty, Request("merged", tmp_path / "out"))


def test_the_mark_of_an_export_tells_where_it_comes_from(tiny_home, tiny_run, tmp_path, records):
    import hashlib

    made(tiny_home, tiny_run, "adapter", tmp_path / "out")
    mark = json.loads((tmp_path / "out" / "export.json").read_text())
    assert mark["target"] == "adapter"
    assert mark["seed"] == 42
    (file,) = mark["data"]
    assert file["sha256"] == hashlib.sha256(Path(records).read_bytes()).hexdigest()
    assert file["name"] == Path(records).name
    assert mark["figures"]["steps"] == 6
    assert mark["versions"]["torch"]
    assert mark["records"]["longest"][0]["where"].startswith(Path(records).name)
    for file in ("export.json", "README.md"):
        told = (tmp_path / "out" / file).read_text()
        for folder in (Path(records).parent, tiny_home.root, Path.home()):
            assert f"{folder}/" not in told, "folders of this machine stay here"
