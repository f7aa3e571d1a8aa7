"""Every figure that the source documents state, through the command line, in one table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from workbench.commands.app import app

LLAMA_3B, TINYLLAMA, LLAMA_7B, LLAMA_70B = (
    "meta-llama/Llama-3.2-3B",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "meta-llama/Llama-2-7b-hf",
    "meta-llama/Llama-2-70b-hf",
)
QV = "adapter.target_modules=[q_proj, v_proj]"
QKVO = "adapter.target_modules=[q_proj, k_proj, v_proj, o_proj]"
FLOAT32 = "quantization.compute_dtype=float32"
WIDE, INT8, NF4 = (f"quantization.method={method}" for method in ("none", "int8", "nf4"))
SINGLE = "quantization.double_quant=false"
LITE, FULL = ("adapter.r=32", "adapter.lora_alpha=64", QKVO), ("adapter.r=256", "adapter.lora_alpha=512")
LLAMA_33B = {
    "model_type": "llama",
    "hidden_size": 6656,
    "intermediate_size": 17920,
    "num_hidden_layers": 60,
    "num_attention_heads": 52,
    "vocab_size": 32000,
}

Answer = dict[str, Any]
Price = Callable[..., Answer]


def one_layer(width: int, height: int) -> Answer:
    """A configuration with one up_proj of this shape."""
    return {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": height,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "head_dim": 64,
        "vocab_size": 64,
    }


def counts(answer: Answer) -> tuple[int, int, float]:
    adapter = answer["adapter"]
    percent = round(adapter["trainable_percent"], 4)
    return adapter["trainable_parameters"], adapter["total_parameters"], percent


def trainable(answer: Answer) -> int:
    return int(answer["adapter"]["trainable_parameters"])


def per_layer(answer: Answer) -> int:
    return sum(module["parameters"] for module in answer["adapter"]["modules"])


def adapter_megabytes(answer: Answer) -> float:
    """In the type that the run keeps it in; the file has a header on top."""
    size = {"float32": 4, "bfloat16": 2}[answer["adapter"]["dtype"]] * trainable(answer)
    assert 0 < answer["adapter"]["file_bytes"] - size < 200_000
    return round(size / 1e6, 1)


def footprint(answer: Answer) -> float:
    return round(answer["base"]["footprint_bytes"] / 1e9, 1)


def footprint_with_adapter(answer: Answer) -> float:
    """The notebook's: its adapter stays in float32 on a 4-bit base."""
    assert answer["adapter"]["dtype"] == "float32"
    return round((answer["base"]["footprint_bytes"] + 4 * trainable(answer)) / 1e9, 2)


def layer_weights(answer: Answer) -> tuple[int, int]:
    """Weights of the one layer, and what is trained of it."""
    (module,) = answer["adapter"]["modules"]
    (r, width), (height, also_r) = module["tensors"].values()
    assert r == also_r
    return width * height, module["parameters"]


def shapes(answer: Answer) -> tuple[list[int], list[int]]:
    (module,) = answer["adapter"]["modules"]
    a_shape, b_shape = module["tensors"].values()
    return a_shape, b_shape


class Stated(NamedTuple):
    """``figure`` of what ``estimate`` says of the model (or configuration) under the changes is ``value``."""

    what: str
    model: str | Answer
    changes: tuple[str, ...]
    figure: Callable[[Answer], Any]
    value: Any
    variant: str = "workbench"


TABLE = (
    Stated("a layer 768×768, r 8", one_layer(768, 768), ("adapter.r=8",), layer_weights, (589_824, 12_288)),
    Stated("a layer 5000×4000, r 8", one_layer(5000, 4000), ("adapter.r=8",), layer_weights, (20_000_000, 72_000)),
    Stated("a layer 4096×4096, r 16", one_layer(4096, 4096), ("adapter.r=16",), layer_weights, (16_777_216, 131_072)),
    Stated("TinyLlama, r 16, q,v", TINYLLAMA, ("adapter.r=16", QV), counts, (2_252_800, 1_102_301_184, 0.2044)),
    Stated("Llama-2-7B, r 8, q,v", LLAMA_7B, ("adapter.r=8", QV), counts, (4_194_304, 6_742_609_920, 0.0622)),
    Stated("lite, a layer", LLAMA_3B, LITE, per_layer, 655_360),
    Stated("lite", LLAMA_3B, LITE, trainable, 18_350_080),
    Stated("lite in float32, MB", LLAMA_3B, (*LITE, FLOAT32), adapter_megabytes, 73.4),
    Stated("full, a layer", LLAMA_3B, FULL, per_layer, 13_893_632),
    Stated("full", LLAMA_3B, FULL, trainable, 389_021_696),
    Stated("full in float32, MB", LLAMA_3B, (*FULL, FLOAT32), adapter_megabytes, 1556.1),
    Stated("3B in float32, GB", LLAMA_3B, (WIDE, FLOAT32), footprint, 12.9),
    Stated("3B in int8, GB", LLAMA_3B, (INT8,), footprint, 3.6),
    Stated("3B in nf4 and double quantization, GB", LLAMA_3B, (NF4,), footprint, 2.2),
    Stated("3B in nf4 with the lite adapter, GB", LLAMA_3B, LITE, footprint_with_adapter, 2.27, "plain"),
    # Where the documents are wrong, the figure that is right.
    Stated("not 8,388,608", LLAMA_3B, ("adapter.r=16", QV), counts, (4_587_520, 3_212_749_824 + 4_587_520, 0.1426)),
    Stated("not 0.1118 % of 3,752,071,168", LLAMA_7B, (NF4, "adapter.r=8", QV), counts,
           (4_194_304, 6_738_415_616 + 4_194_304, 0.0622)),
    Stated("A is r×in, B is out×r", one_layer(768, 512), ("adapter.r=8",), shapes, ([8, 768], [512, 8])),
    Stated("the type of this run's adapter", LLAMA_7B, (), lambda a: a["adapter"]["dtype"], "bfloat16"),
    Stated("the notebooks' type", LLAMA_7B, (), lambda a: a["adapter"]["dtype"], "float32", "plain"),
)  # fmt: skip


@pytest.fixture
def priced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Price:
    """``loraworkbench estimate MODEL --set … --json``, parsed."""
    monkeypatch.setenv("LORAWORKBENCH_HOME", str(tmp_path))

    def run(model: str | Answer, *changes: str, variant: str = "workbench") -> Answer:
        if not isinstance(model, str):
            (tmp_path / "config.json").write_text(json.dumps(model), encoding="utf-8")
            model, changes = str(tmp_path), (*changes, "adapter.target_modules=[up_proj]")
        options = [part for change in changes for part in ("--set", change)]
        result = CliRunner().invoke(app, ["estimate", model, *options, "--variant", variant, "--no-trace", "--json"])
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        assert isinstance(answer, dict)
        return answer

    return run


@pytest.mark.parametrize("stated", TABLE, ids=lambda stated: stated.what)
def test_stated_figure(priced: Price, stated: Stated) -> None:
    assert stated.figure(priced(stated.model, *stated.changes, variant=stated.variant)) == stated.value


@pytest.mark.parametrize(("model", "wide", "narrow"), [(LLAMA_7B, 14, 3.5), (LLAMA_70B, 140, 35)])
def test_weights_alone(priced: Price, model: str, wide: float, narrow: float) -> None:
    """Round figures for round sizes: two bytes a parameter in 16 bits, half a byte in 4, of what is quantised."""
    answer = priced(model, WIDE)
    rotary_buffers = 512
    assert answer["base"]["footprint_bytes"] == 2 * answer["model"]["parameters"] + rotary_buffers
    assert answer["base"]["footprint_bytes"] / 1e9 == pytest.approx(wide, rel=0.05)
    assert priced(model, NF4)["base"]["footprint_bytes"] / 1e9 == pytest.approx(narrow, rel=0.12)


def test_double_quantisation_saves_037_bit_a_parameter(priced: Price) -> None:
    double, single = (priced(LLAMA_7B, NF4, *changes)["base"]["true_bytes"] for changes in ((), (SINGLE,)))
    quantised = 6_476_005_376
    assert (single - double) * 8 / quantised == pytest.approx(0.373, abs=0.001)


@pytest.mark.parametrize(
    ("model", "billions", "lora", "qlora"),
    [
        (LLAMA_7B, 7, 16, 6),
        ("meta-llama/Llama-2-13b-hf", 13, 30, 10),
        (LLAMA_33B, 33, 70, 20),
        (LLAMA_70B, 70, 150, 40),
    ],
)
def test_rules_of_thumb_stand_beside_our_figure_under_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str | Answer, billions: int, lora: int, qlora: int
) -> None:
    monkeypatch.setenv("LORAWORKBENCH_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    if not isinstance(model, str):
        (tmp_path / "config.json").write_text(json.dumps(model), encoding="utf-8")
        model = str(tmp_path)
    shown = CliRunner().invoke(app, ["estimate", model, "--no-trace"]).stdout
    assert f"rule of thumb for {billions}B: {lora} GB (16-bit LoRA), {qlora} GB (QLoRA)" in shown
    assert "training peak" in shown
