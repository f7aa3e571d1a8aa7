"""Every figure that the source documents state, through the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workbench.commands.app import app

LLAMA_3B, TINYLLAMA, LLAMA_7B = (
    "meta-llama/Llama-3.2-3B",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "meta-llama/Llama-2-7b-hf",
)
QV = "adapter.target_modules=[q_proj, v_proj]"
QKVO = "adapter.target_modules=[q_proj, k_proj, v_proj, o_proj]"
ROTARY_BUFFERS = 512
FLOAT32 = "quantization.compute_dtype=float32"


@pytest.fixture
def priced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``loraworkbench estimate MODEL --set … --json``, parsed."""
    monkeypatch.setenv("LORAWORKBENCH_HOME", str(tmp_path))

    def run(model: str, *changes: str, variant: str = "workbench") -> dict[str, Any]:
        options = [part for change in changes for part in ("--set", change)]
        result = CliRunner().invoke(app, ["estimate", model, *options, "--variant", variant, "--json"])
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        assert isinstance(answer, dict)
        return answer

    return run


@pytest.mark.parametrize(
    ("model", "changes", "trainable", "total", "percent"),
    [
        (TINYLLAMA, ["adapter.r=16", QV], 2_252_800, 1_102_301_184, 0.2044),
        (LLAMA_7B, ["adapter.r=8", QV], 4_194_304, 6_742_609_920, 0.0622),
        (LLAMA_3B, ["adapter.r=16", QV], 4_587_520, 3_217_337_344, 0.1426),
        (LLAMA_3B, ["adapter.r=32", QKVO], 18_350_080, 3_231_099_904, 0.5679),
        (LLAMA_3B, ["adapter.r=256"], 389_021_696, 3_601_771_520, 10.8008),
    ],
)
def test_trained_parameters(
    priced: Any, model: str, changes: list[str], trainable: int, total: int, percent: float
) -> None:
    adapter = priced(model, *changes)["adapter"]
    assert (adapter["trainable_parameters"], adapter["total_parameters"]) == (trainable, total)
    assert round(adapter["trainable_percent"], 4) == percent


@pytest.mark.parametrize(
    ("changes", "a_layer", "megabytes"),
    [(["adapter.r=32", QKVO], 655_360, 73.4), (["adapter.r=256"], 13_893_632, 1556.1)],
)
def test_lite_and_full_adapters_in_float32(priced: Any, changes: list[str], a_layer: int, megabytes: float) -> None:
    adapter = priced(LLAMA_3B, *changes, FLOAT32)["adapter"]
    assert adapter["dtype"] == "float32"
    assert sum(module["parameters"] for module in adapter["modules"]) == a_layer
    assert adapter["trainable_parameters"] * 4 / 1e6 == pytest.approx(megabytes, abs=0.05)
    assert adapter["file_bytes"] / 1e6 == pytest.approx(megabytes, abs=0.1)


@pytest.mark.parametrize(
    ("width", "height", "r", "parameters"), [(768, 768, 8, 12_288), (5000, 4000, 8, 72_000), (4096, 4096, 16, 131_072)]
)
def test_one_layer(priced: Any, tmp_path: Path, width: int, height: int, r: int, parameters: int) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": height,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "head_dim": 64,
        "vocab_size": 64,
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (module,) = priced(str(tmp_path), f"adapter.r={r}", "adapter.target_modules=[up_proj]")["adapter"]["modules"]
    assert (module["a_shape"], module["b_shape"]) == ([r, width], [height, r])
    assert module["parameters"] == parameters


@pytest.mark.parametrize(
    ("changes", "gigabytes"),
    [
        (["quantization.method=none", FLOAT32], 12.9),
        (["quantization.method=int8"], 3.6),
        (["quantization.method=nf4"], 2.2),
    ],
)
def test_footprints(priced: Any, changes: list[str], gigabytes: float) -> None:
    assert round(priced(LLAMA_3B, *changes)["base"]["footprint_bytes"] / 1e9, 1) == gigabytes


def test_footprint_with_the_lite_adapter(priced: Any) -> None:
    """The notebook's float32 adapter on its 4-bit base."""
    answer = priced(LLAMA_3B, "adapter.r=32", QKVO, variant="plain")
    adapter_bytes = 4 * answer["adapter"]["trainable_parameters"]
    assert answer["adapter"]["dtype"] == "float32"
    assert round((answer["base"]["footprint_bytes"] + adapter_bytes) / 1e9, 2) == 2.27


@pytest.mark.parametrize(
    ("model", "wide", "narrow"),
    [(LLAMA_7B, 14, 3.5), ("meta-llama/Llama-2-70b-hf", 140, 35)],
)
def test_weights_alone(priced: Any, model: str, wide: float, narrow: float) -> None:
    """Round figures for round sizes: two bytes a parameter in 16 bits, half a byte in 4."""
    answer = priced(model, "quantization.method=none")
    assert answer["base"]["footprint_bytes"] == 2 * answer["model"]["parameters"] + ROTARY_BUFFERS
    assert answer["base"]["footprint_bytes"] / 1e9 == pytest.approx(wide, rel=0.05)
    assert priced(model, "quantization.method=nf4")["base"]["footprint_bytes"] / 1e9 == pytest.approx(narrow, rel=0.12)


def test_double_quantisation_saves_037_bit_a_parameter(priced: Any) -> None:
    double = priced(LLAMA_7B, "quantization.double_quant=true")["base"]["true_bytes"]
    single = priced(LLAMA_7B, "quantization.double_quant=false")["base"]["true_bytes"]
    quantised = 6_476_005_376
    assert (single - double) * 8 / quantised == pytest.approx(0.373, abs=0.001)


def test_packed_weights_count_in_full(priced: Any) -> None:
    """Not 3,752,071,168: packed storage halves the count that naive code sees."""
    answer = priced(LLAMA_7B, "quantization.method=nf4", "adapter.r=8", QV)
    assert answer["model"]["parameters"] == 6_738_415_616
    assert answer["adapter"]["total_parameters"] == 6_742_609_920
