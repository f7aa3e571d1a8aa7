"""Tiny models of other families than the Llama of all tests, and one of them as an export has it in its hands."""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.conftest import CHAT_TEMPLATE
from workbench.data.templates.template import Template
from workbench.export.weights import Merged, load, logits, probe_prompts

TEXTS = (
    "Hello world, how are you?",
    "  two spaces before\n\nand a line between",
    "In 1984, 12345 + 6789 = 19134!",
    "don't won't I'LL über Öl 東京 🧭",
    "<|im_start|>user\nWhy?<|im_end|>\n",
    "def f(x):\n    return x**2\n",
)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = [
    "Hello world, how are you today? I am well, thank you, and how are you?",
    "In 1984 there were 12345 ships in the harbour, and 6789 of them sailed with the tide.",
    "The mate stood on the deck and looked out over the grey water, for the wind had turned.",
    "def f(x): return x**2 if x else None  # don't, won't, I'll",
]
_SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def save_tokenizer(folder: Path, kind: str) -> int:
    """``spm``: as Llama 2 and Mistral have it, byte fallback and ▁ for spaces. ``qwen2``, ``gpt-2``: byte-level."""
    from transformers import PreTrainedTokenizerFast

    if kind == "spm":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
        alphabet = []
    else:
        tokenizer = Tokenizer(models.BPE())
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "qwen2")
        split = pre_tokenizers.Split(Regex(_QWEN2), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level]) if kind == "qwen2" else byte_level
        tokenizer.decoder = decoders.ByteLevel()
        special, alphabet = _SPECIAL, pre_tokenizers.ByteLevel.alphabet()
    # Words are cut at spaces while it learns, as SentencePiece does: a merge never crosses one.
    tokenizer.train_from_iterator(
        [word for line in _CORPUS for word in line.split()] if kind == "spm" else _CORPUS,
        trainers.BpeTrainer(vocab_size=520, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="<|im_end|>", pad_token="</s>"
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return len(fast)


def save_model(folder: Path, family: str, *, hidden_size: int = 64, initializer_range: float = 0.2) -> Path:
    """``mistral`` (SentencePiece-like), ``qwen2`` (biases, untied head) or ``llama3`` (scaled positions), random."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = {"mistral": "spm", "qwen2": "qwen2", "llama3": "gpt-2"}[family]
    more = {
        "mistral": {"sliding_window": None, "head_dim": 32},
        "qwen2": {"tie_word_embeddings": False},
        "llama3": {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    }[family]
    size = save_tokenizer(folder, tokenizer)
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        "llama" if family == "llama3" else family,
        # More rows than tokens, as models have whose embeddings are padded to a round number.
        vocab_size=size + 8,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=initializer_range,
        **more,
    )
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


def as_merged(folder: Path) -> Merged:
    """A model as it is after a merge that changed nothing."""
    model, tokenizer = load(folder)
    template = Template.for_model(tokenizer)
    prompts = probe_prompts(template)
    answers = logits(model, prompts)
    return Merged(model, tokenizer, template, prompts, 512, answers, answers, answers)
