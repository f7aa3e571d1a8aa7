"""An adapter alone as GGUF: what is refused, how ΔW is factored, and llama.cpp's replies with base and adapter."""

import json

import numpy as np
import pytest

from tests.export.tiny_models import save_model
from workbench.errors import WorkbenchError
from workbench.export.gguf.adapter import factored
from workbench.export.gguf.support import check_is_low_rank
from workbench.export.plan import plan_export
from workbench.export.request import Request


def test_only_low_rank_matrices_on_linear_layers_are_written():
    plain = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
    check_is_low_rank(plain)
    check_is_low_rank({**plain, "use_rslora": True, "target_modules": "all-linear"})
    for change, words in (
        ({"peft_type": "IA3"}, "IA³"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "rows of the embeddings"),
        ({"bias": "all"}, "biases"),
        ({"init_lora_weights": "pissa"}, "changes the base's own weights"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "on the embeddings"),
    ):
        with pytest.raises(WorkbenchError, match="low-rank") as caught:
            check_is_low_rank({**plain, **change})
        assert words in caught.value.message
        assert "`gguf`" in caught.value.cure


def test_a_product_is_factored_into_its_rank_and_a_full_matrix_is_refused():
    random = np.random.default_rng(1)

    def product(rank, *before):
        a, b = random.standard_normal((*before, rank, 48)), random.standard_normal((*before, 64, rank))
        return (b @ a).astype(np.float32)

    for rank in (1, 8):
        delta = product(rank)
        found = factored("w", delta, 8)
        assert found.rank == rank
        assert found.difference < 1e-5
        assert np.allclose(found.b @ found.a, delta, atol=1e-3)
    # Two adapters side by side in one weight, and several experts.
    assert factored("w", np.concatenate([product(8), product(8)]), 8).rank == 16
    experts = factored("w", product(4, 3), 4)
    assert (experts.a.shape, experts.b.shape) == ((3, 4, 48), (3, 64, 4))
    with pytest.raises(WorkbenchError, match="cannot be written as two matrices"):
        factored("w", random.standard_normal((64, 64)).astype(np.float32), 2)


def test_a_plan_names_what_is_missing(tiny_home, tiny_run, tmp_path):
    plan = plan_export(tiny_home, tiny_run, Request("gguf-lora", tmp_path / "out"))
    assert plan.download > 0
    assert plan.writer is not None
    assert "A LoRA in GGUF needs llama.cpp's converter" in plan.writer.refusal().message
    size = (tiny_run.adapter / "adapter_model.safetensors").stat().st_size
    assert size < plan.size < plan.disk


@pytest.mark.real
def test_base_and_adapter_reply_in_llama_cpp_as_the_merged_model(llama_cpp, tmp_path):
    """Mistral, whose rows the converter reorders: first choices and probabilities at each token of four replies."""
    from tests.engine.voices_of_tiny import save_random_adapter
    from workbench.export.bare import run_of_adapter
    from workbench.export.run import export_run

    base = save_model(tmp_path / "base", "mistral", hidden_size=256)
    adapter = save_random_adapter(base, tmp_path / "adapter", 1, use_rslora=True, rank_pattern={"q_proj": 2})
    with run_of_adapter(llama_cpp, str(adapter), str(base), "gguf-lora") as run:
        lora = export_run(llama_cpp, run, Request("gguf-lora", tmp_path / "out"), lambda told: None, bool)
    assert [name for name, _ in lora.files] == ["README.md", "adapter-lora.gguf", "export.json"]
    assert lora.figures["lora_against_delta"]["matrices"] == 14
    assert lora.figures["lora_against_delta"]["difference"] < 1e-4
    assert lora.figures["llama_cpp_against_merged"]["agreement"] == 1
    assert lora.figures["llama_cpp_against_merged"]["divergence"] < 1e-3
    assert json.loads((tmp_path / "out" / "export.json").read_text())["target"] == "gguf-lora"
