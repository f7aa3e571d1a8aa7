"""The text blocks from which an exported script is assembled. ``# %%`` starts a cell in the notebook version."""

SUPERVISED_IMPORT = "from trl import SFTConfig, SFTTrainer\n"

ABOUT_RUN = """Trains the adapter of the run {title} again: same tokens, same order, same losses.

Needs only the packages in requirements.txt. With the same processor and versions as the run, the losses are equal; on
another machine, or with another number of threads (OMP_NUM_THREADS), they agree up to rounding.
"""

ABOUT_RECIPE = """Trains a LoRA adapter by the recipe {title}.

Needs only the packages in requirements.txt.
"""

HEAD = '''"""{about}"""

import json
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer

# %% The run's settings
HERE = {here}
'''

CALLBACK = """# %% Stop where the run stopped, and keep the adapter that the run kept
class AsTheRun(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step == KEEP_STEP:
            model.save_pretrained(HERE / "adapter")
        if state.global_step == STOP_AFTER:
            control.should_training_stop = True


"""

LOAD = """# %% Base, tokenizer, records
def quantization():
    if QUANTIZATION is None:
        return None
    if "load_in_8bit" in QUANTIZATION:
        return BitsAndBytesConfig(**QUANTIZATION)
    return BitsAndBytesConfig(**QUANTIZATION, bnb_4bit_compute_dtype=getattr(torch, COMPUTE_DTYPE))


def cast_adapter(model):
    for name, parameter in model.named_parameters():
        # Some parameters change by less than bfloat16 can represent, such as DoRA's magnitudes.
        if parameter.requires_grad:
            is_float32 = any(part in name for part in FLOAT32)
            parameter.data = parameter.data.to(torch.float32 if is_float32 else getattr(torch, ADAPTER_DTYPE))


tokenizer = AutoTokenizer.from_pretrained(MODEL, revision=REVISION, trust_remote_code=TRUST_REMOTE_CODE)
model = AutoModelForCausalLM.from_pretrained(
    MODEL,
    revision=REVISION,
    dtype=getattr(torch, COMPUTE_DTYPE),
    quantization_config=quantization(),
    device_map={"": 0} if torch.cuda.is_available() else None,
    trust_remote_code=TRUST_REMOTE_CODE,
    use_safetensors=True,
)
model.requires_grad_(False)
model.eval()
for layer in model.modules():
    # On some CPUs, bitsandbytes would repack 4-bit weights in a layout without a gradient.
    if hasattr(layer, "support_avx512bf16_for_cpu"):
        layer.support_avx512bf16_for_cpu = False
with (HERE / "records.jsonl").open(encoding="utf-8") as file:
    records = Dataset.from_list([json.loads(line) for line in file])

"""

RESIZE = """# %% Rows for the tokens that the tokenizer has beyond the embeddings
before = model.get_input_embeddings().num_embeddings
model.resize_token_embeddings({rows}, mean_resizing=False)
with torch.no_grad():
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight[before:] = layer.weight[:before].mean(0, dtype=torch.float32).to(layer.weight.dtype)
model.requires_grad_(False)

"""

START = """from peft import set_peft_model_state_dict  # the weights that the run started from
from safetensors.torch import load_file

set_peft_model_state_dict(model, load_file(HERE / "start" / "adapter_model.safetensors"))
cast_adapter(model)
"""

SUBTRACT = """subtract_start(model)
save_as_plain(model, HERE / "start")
"""

EXPOSE_BIAS = """head = model.get_output_embeddings()
head.__dict__["bias"] = getattr(head.token_adapter.get_base_layer(), "bias", None)
"""

LOSS = """# TRL's head is replaced.
model.get_base_model().__dict__.pop("forward", None)
LossHead(model.get_base_model(), in_tiles={in_tiles}, router_loss_is_zero=True{smoothing})
trainer.data_collator = TrainedTokensCollator(pad_token_id=tokenizer.pad_token_id, padding_free={padding_free})
"""

PADDING_FREE = """enable_padding_free(model.get_base_model())
"""

ARGUMENTS = "        **TRAINING,\n"
OFFLOADING = f"        activation_offloading=torch.cuda.is_available(),\n{ARGUMENTS}"

ALLOCATION = """allocation = RankAllocation(model)
trainer.add_callback(allocation)
allocation.with_orthogonality(trainer)
"""

COMPILED = """compiled = CompiledLayers(model, HERE / "compiled", {uncompiled})
compiled.is_strict = False
step = trainer.training_step


def compiled_step(*arguments, **options):
    with compiled.active():
        return step(*arguments, **options)


trainer.training_step = compiled_step
"""

TILED = """tiled = TiledMlps(model)
whole_step = trainer.training_step


def tiled_step(*arguments, **options):
    with tiled.active():
        return whole_step(*arguments, **options)


trainer.training_step = tiled_step
"""

LIGER = """if torch.cuda.is_available():
    apply_kernels(liger_operations(), model.get_base_model())
"""

TRAIN = """# %% Train
torch.manual_seed(SEED)
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **ADAPTER))
cast_adapter(model)
trainer = SFTTrainer(
    model=model,
    args=SFTConfig(
        output_dir=str(HERE / "checkpoints"),
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        **TRAINING,
    ),
    train_dataset=records,
    processing_class=tokenizer,
    callbacks=[AsTheRun()],
)
{loss}{padding_free}{liger}{compiled}{tiled}
# For a quantized base, TRL sets the adapter to bfloat16 regardless of the compute dtype.
cast_adapter(model)
trainer.train()

# %% Save the adapter

if KEEP_STEP is None:
    model.save_pretrained(HERE / "adapter")
tokenizer.chat_template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
tokenizer.save_pretrained(HERE / "adapter")
losses = {{entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}}
(HERE / "losses.json").write_text(json.dumps(losses, indent=1) + "\\n", encoding="utf-8")
print(f"Last loss {{losses[max(losses)]}}; the run's was {{LAST_LOSS_OF_THE_RUN}}.")
"""

RESULT_OF_RUN = """print(f"Last loss {losses[max(losses)]}; the run's was {LAST_LOSS_OF_THE_RUN}.")
"""

RESULT_OF_RECIPE = """print(f"Last loss {losses[max(losses)]}.")
"""
