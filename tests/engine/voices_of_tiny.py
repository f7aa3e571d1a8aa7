"""Adapters on a tiny model that were never trained, and what plain transformers and PEFT say with them."""

from pathlib import Path

from workbench.engine.client.protocol import ReplyPiece, ReplyRequest
from workbench.progress import Progress
from workbench.runs.folder import RunFolder, create_run

QUESTION = "Why do ships float?"


def save_random_adapter(model_folder: Path, folder: Path, seed: int, **options) -> Path:
    """A LoRA of random A and B on all linear layers: strong enough to change every reply."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    fields = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    adapted = get_peft_model(model, LoraConfig(**fields))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
            elif parameter.requires_grad and "lora_" not in name:
                parameter.add_(torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    return folder


def run_with_adapter(home, recipe, seed: int, **options) -> RunFolder:
    """A run folder as training leaves it, with an adapter of random weights."""
    run = create_run(home, recipe)
    save_random_adapter(Path(recipe.model.source), run.adapter, seed, **options)
    return run


def answered(engine, request: ReplyRequest) -> tuple[str, ReplyPiece, list[str]]:
    """The whole reply of an engine in this process, its last piece, and what was told of loading meanwhile."""
    import threading

    pieces, errors, done = [], [], threading.Event()

    def finished(error) -> None:
        errors.append(error)
        done.set()

    engine.reply(request, pieces.append, finished)
    assert done.wait(120)
    if errors[0] is not None:
        raise errors[0]
    said = [piece for piece in pieces if isinstance(piece, ReplyPiece)]
    phases = [piece.phase for piece in pieces if isinstance(piece, Progress) and piece.phase != "loading"]
    phases += [piece.detail for piece in pieces if isinstance(piece, Progress) and " as " in piece.detail]
    return "".join(piece.text for piece in said), said[-1], phases


def plain_base(model_folder: Path, method: str, compute: str):
    """A base as plain transformers loads it."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = getattr(torch, compute)
    config = None
    if method == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype, quantization_config=config).eval()


def plain_reply(model, tokenizer, tokens: int, question: str = QUESTION) -> str:
    """A greedy reply of plain transformers."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt.to(model.device), max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
