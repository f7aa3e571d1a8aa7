"""What other estimators say of the same runs. ``bench/accuracy.py --others`` runs this in an environment of its own.

The packages are not among the workbench's dependencies, and this file imports nothing of the workbench:

    python -m venv others && others/bin/pip install canifinetune fitcheck-llm ftuneai llmcalculator vramcalc
    python -m bench.accuracy docs/measurements/rtx4080-published.csv --others others/bin/python

In on stdin: a JSON list of runs (model, config, parameters, method, batch, length, checkpoints). Out: for each
estimator its version and a GiB figure a run, null where it does not price such a run. All get r = 16 on q, k, v and o
and the optimizer in 8 bits, where they can be told.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

GIB = 2**30
Run = dict[str, Any]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def canifinetune(run: Run) -> float | None:
    """Without its safety margin, which it lists apart."""
    from canifinetune.estimator.memory import EstimateRequest, estimate

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(run["config"]), encoding="utf-8")
        request = EstimateRequest(
            model_id=folder,
            method=run["method"],
            seq_len=run["length"],
            micro_batch_size=run["batch"],
            lora_rank=16,
            lora_target_scope="attention",
            optimizer="paged_adamw_8bit",
            gradient_checkpointing=run["checkpoints"],
            gpu_vram_gb=16.0,
            use_network=False,
        )
        memory = estimate(request).memory
    return float(memory.total_estimated_gb - memory.safety_margin_gb)


def fitcheck(run: Run) -> float | None:
    from fitcheck import ModelConfig, TrainingConfig, estimate, get_gpu

    config = run["config"]
    model = ModelConfig(
        name=run["model"],
        num_params=run["parameters"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_attention_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        head_dim=config["hidden_size"] // config["num_attention_heads"],
        tie_word_embeddings=config["tie_word_embeddings"],
    )
    is_4bit = run["method"] == "qlora"
    training = TrainingConfig(
        quantization="nf4" if is_4bit else "none",
        double_quant=is_4bit,
        optimizer="adamw8bit",
        batch_size=run["batch"],
        seq_len=run["length"],
        lora_rank=16,
        lora_targets=TARGETS,
        grad_checkpoint=run["checkpoints"],
        flash_attn=True,
    )
    return float(estimate(model, training, get_gpu("5080")).total_mib / 1024)


def ftune(run: Run) -> float | None:
    from ftuneai.core.memory import MemoryEstimator
    from ftuneai.core.models import FineTuneMethod, LoRATarget, ModelSpec, OptimizerType, TrainingConfig

    config = run["config"]
    model = ModelSpec(
        name=run["model"],
        parameters=run["parameters"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_attention_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        max_seq_length=config["max_position_embeddings"],
    )
    training = TrainingConfig(
        method=FineTuneMethod(run["method"]),
        batch_size=run["batch"],
        seq_length=run["length"],
        gradient_checkpointing=run["checkpoints"],
        optimizer=OptimizerType.ADAM_8BIT,
        lora_rank=16,
        lora_target=LoRATarget.ATTENTION_ALL,
        flash_attention=True,
    )
    return float(MemoryEstimator(model, training).estimate().total_gb)


def llmcalculator(run: Run) -> float | None:
    """It knows no rank: half a percent of the model is trained."""
    from llmcalculator import estimate, workloads
    from llmcalculator.hardware.base import CPU, HardwareProfile
    from llmcalculator.models.spec import ModelSpec

    config = run["config"]
    model = ModelSpec(
        name=run["model"],
        params=run["parameters"],
        n_layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        n_heads=config["num_attention_heads"],
        n_kv_heads=config["num_key_value_heads"],
        max_context=config["max_position_embeddings"],
        vocab_size=config["vocab_size"],
    )
    machine = HardwareProfile(CPU("", 1, 1), 16 * GIB)
    told = estimate(
        model,
        machine,
        workloads.get(run["method"]),
        context=run["length"],
        batch=run["batch"],
        gradient_checkpointing=run["checkpoints"],
    )
    return float(told.breakdown.total / GIB)


def vramcalc(run: Run) -> float | None:
    """It knows no 4-bit base. Rank 16 goes on all linear layers, Adam is kept in float32."""
    from vramcalc import estimate

    if run["method"] != "lora":
        return None
    told = estimate(
        run["config"],
        mode="train",
        dtype="bf16",
        batch=run["batch"],
        seq_len=run["length"],
        lora_rank=16,
        grad_checkpoint=run["checkpoints"],
        precision="pure",
    )
    return float(told.total / GIB)


ESTIMATORS: dict[str, Callable[[Run], float | None]] = {
    "canifinetune": canifinetune,
    "fitcheck-llm": fitcheck,
    "ftuneai": ftune,
    "llmcalculator": llmcalculator,
    "vramcalc": vramcalc,
}


def main() -> None:
    runs = json.load(sys.stdin)
    told = {}
    for package, estimator in ESTIMATORS.items():
        told[package] = {"version": metadata.version(package), "gib": [estimator(run) for run in runs]}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
