"""``loraworkbench export`` and ``import`` as a person types them."""

import json
import subprocess
import sys

from tests.command_line import call
from tests.engine.voices_of_tiny import save_random_adapter


def test_a_run_is_exported_and_the_next_command_told(tiny_home, tiny_run, tmp_path):
    done = call(tiny_home, "export", tiny_run.id, "--to", "vllm", tmp_path / "an out")
    assert done.returncode == 0, done.stderr
    assert "to write" in done.stdout
    assert "free on the disk" in done.stdout
    assert "adapter/adapter_model.safetensors" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"cd '{tmp_path}/an out' && vllm serve ")


def test_a_plan_does_nothing(tiny_home, tiny_run, tmp_path):
    done = call(tiny_home, "export", "tiny-01", "--to", "gguf", "--type", "q8_0", "--plan", "--json", tmp_path / "out")
    plan = json.loads(done.stdout)
    assert {
        "size",
        "disk",
        "free",
        "memory",
        "free_memory",
        "seconds",
        "precise",
        "notices",
        "writer",
        "download",
    } == set(plan)
    assert (plan["writer"], plan["download"]) == ("own", 0)
    assert list(tmp_path.iterdir()) == []


def test_facts_for_programs(tiny_home, tiny_run, tmp_path):
    done = call(tiny_home, "export", "tiny-01", "--to", "merged", "--json", tmp_path / "out")
    facts = json.loads(done.stdout)
    assert facts["folder"] == str(tmp_path / "out")
    assert ["model.safetensors", (tmp_path / "out" / "model.safetensors").stat().st_size] in facts["files"]
    assert facts["figures"]["read_back_against_merged"]["agreement"] == 1.0


def test_mistakes_end_in_a_sentence(tiny_home, tiny_run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("")
    for arguments, words in (
        (("tiny-01", "--to", "gugf", tmp_path / "out"), "Unknown export target"),
        (("nothing", "--to", "adapter", tmp_path / "out"), "There is no run nothing"),
        (("tiny-01", "--to", "adapter", tmp_path / "mine", "--force"), "no export wrote"),
        (("tiny-01", "--to", "hub", tmp_path / "out"), "--repo owner/name"),
    ):
        done = call(tiny_home, "export", *arguments)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_another_tools_file_becomes_a_recipe(tiny_home, tiny_run, tmp_path):
    call(tiny_home, "export", "tiny-01", "--to", "axolotl", tmp_path / "out")
    with (tmp_path / "out" / "axolotl.yaml").open("a") as file:
        file.write('jagged_restart_steps: 5\nlora_note: "\\e[31mred"\n')
    done = call(tiny_home, "import", tmp_path / "out" / "axolotl.yaml", "--output", tmp_path / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    assert "Not supported: jagged_restart_steps: 5" in done.stderr
    assert "\x1b" not in done.stderr
    again = call(tiny_home, "import", tmp_path / "out" / "axolotl.yaml", "-o", tmp_path / "recipe.yaml")
    assert again.returncode == 1
    assert "Give a new file name" in again.stderr
    printed = call(tiny_home, "import", tmp_path / "out" / "axolotl.yaml", "--json")
    assert json.loads(printed.stdout)["recipe"]["adapter"]["r"] == 8


def test_neither_the_plan_nor_the_command_needs_torch():
    code = "import sys, workbench.commands.app, workbench.export.run; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_an_adapter_without_a_run_is_exported_on_a_base_that_the_user_names(tiny_home, tiny_llama, tmp_path):
    folder = save_random_adapter(tiny_llama, tmp_path / "from elsewhere", 1, use_rslora=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/gone/llama-7b"}))
    lost = call(tiny_home, "export", folder, tmp_path / "lost", "--to", "merged")
    assert lost.returncode == 1
    assert "/gone/llama-7b" in lost.stderr
    done = call(tiny_home, "export", folder, tmp_path / "out", "--to", "gguf", "--base", tiny_llama)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "from elsewhere-f16.gguf").is_file()
    card, mark = ((tmp_path / "out" / name).read_text() for name in ("README.md", "export.json"))
    assert "trained elsewhere" in card
    assert "## Data" not in card, "nothing is said of a training that nobody saw"
    assert json.loads(mark)["check"]["merged_against_unmerged"]["divergence"] < 0.01
    assert set(json.loads(mark)) == {"target", "adapter", "base", "check"}
    script = call(tiny_home, "export", folder, tmp_path / "no", "--to", "script", "--base", tiny_llama)
    assert "an adapter without a run" in " ".join(script.stderr.split())
    assert [entry.name for entry in tiny_home.cache.iterdir() if entry.name.startswith(".adapter-")] == []
