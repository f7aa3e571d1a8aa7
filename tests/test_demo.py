"""The README's first command, shortened: a real chat model, trained, asked, and loaded again without this project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.json_outputs import assert_documented
from workbench.storage.paths import Home

# As a user would load it: the base that the adapter names, quantised as the run's recipe says.
FOREIGN = """
import json, sys, torch
from pathlib import Path
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
adapter, dtype = sys.argv[1], getattr(torch, sys.argv[2])
source = json.loads(Path(adapter, "adapter_config.json").read_text())["base_model_name_or_path"]
config = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
)
base = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype=dtype)
model = PeftModel.from_pretrained(base, adapter).eval()
tokenizer = AutoTokenizer.from_pretrained(adapter)
for prompt in json.loads(sys.argv[3]):
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=80, do_sample=False)
    print(json.dumps(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip()))
assert "workbench" not in sys.modules
"""


@pytest.mark.real
@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.timeout(1200)
def test_the_demo_keeps_its_promises(smollm2_home: Home, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    home.models.symlink_to(smollm2_home.models, target_is_directory=True)
    command = [sys.executable, "-m", "workbench.cli", "--home", str(home.root)]
    try:
        done = subprocess.run(
            [*command, "demo", "--steps", "20", "--json"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run([*command, "engine", "stop", "--force"], check=False)
    assert_documented(["demo"], done.stdout)
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert len([event for event in events if event["event"] == "step"]) == 20
    assert set(last) == {"run", "adapter", "perplexity", "replies"}
    assert last["perplexity"]["tuned"] < last["perplexity"]["base"] / 2
    assert all(set(reply) == {"prompt", "base", "tuned"} for reply in last["replies"])
    assert sum(reply["tuned"].startswith(("Aye", "Avast", "Nay")) for reply in last["replies"]) >= 3
    assert not any(reply["base"].startswith(("Aye", "Avast")) for reply in last["replies"])

    dtype = next(event["compute_dtype"] for event in events if "compute_dtype" in event)
    prompts = [reply["prompt"] for reply in last["replies"]][:2]
    foreign = subprocess.run(
        [sys.executable, "-c", FOREIGN, last["adapter"], dtype, json.dumps(prompts)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert foreign.returncode == 0, foreign.stderr[-2000:]
    replies = [json.loads(line) for line in foreign.stdout.splitlines() if line.startswith('"')]
    assert replies == [reply["tuned"] for reply in last["replies"]][:2]
