"""The most used public datasets: the layout of each, with records made up for the test, and what is right for them.

In ``text`` trained stretches stand between ⟦ and ⟧. It is written by hand, from the templates' definitions.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trl

QWEN3 = str(Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja")


@dataclass(frozen=True)
class Layout:
    """One set's layout, and what is right for it.

    Attributes:
        known: where its columns are known from.
        kind: the record format; ``preference`` is refused.
        text: the training text, or what the refusal says.
        unused: fields that are named as unused, and whether they are asked about.
        cure: what a refusal says to do.
        same: other sets of the same layout.
        where: configuration or split, where it is not the default and ``train``.
        more: rows that belong to the record, where a record is several rows.
    """

    name: str
    known: str
    record: dict[str, Any]
    kind: str
    text: str
    unused: dict[str, bool] = field(default_factory=dict)
    cure: str = ""
    template: str = "chatml"
    file: str = "jsonl"
    same: tuple[str, ...] = ()
    where: str = ""
    more: tuple[dict[str, Any], ...] = ()


def s(text: str) -> str:
    return f"<|im_start|>system\n{text}<|im_end|>\n"


def u(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n"


def a(text: str) -> str:
    return f"<|im_start|>assistant\n⟦{text}<|im_end|>⟧\n"


def masked(text: str) -> str:
    return f"<|im_start|>assistant\n{text}<|im_end|>\n"


def result(text: str) -> str:
    return f"<|im_start|>user\n<tool_response>\n{text}\n</tool_response><|im_end|>\n"


def tools(text: str, system: str = "") -> str:
    """The system prompt of ``chatml-tools``."""
    return s(
        (f"{system}\n\n" if system else "")
        + f"You can call these functions, given as JSON schemas:\n<tools>\n{text}\n</tools>\n"
        + "To call one, write its name and arguments as JSON:\n"
        + '<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call>'
    )


def message(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"content": content, "role": role, **more}


def said(sender: str, value: str, **more: Any) -> dict[str, Any]:
    return {"from": sender, "value": value, **more}


ASKED, TOLD = message("user", "Why is the sea blue?"), message("assistant", "It scatters light.")
NO = message("assistant", "It just is.")
HUMAN, GPT = said("human", "Why is the sea blue?"), said("gpt", "It scatters light.")
PAIR = u("Why is the sea blue?") + a("It scatters light.")
THOUGHT = "Water takes red light away first."
ONE = "Supervised training uses one response per prompt."
CHOSEN = "pairs of a chosen and a rejected response"

WEATHER = {"name": "weather", "description": "Of a city.", "parameters": {"city": {"type": "str"}}}
WEATHER_JSON = '{"name": "weather", "description": "Of a city.", "parameters": {"city": {"type": "str"}}}'
# As a template gets it: under "function".
WRAPPED_JSON = f'{{"type": "function", "function": {WEATHER_JSON}}}'
CALL_JSON = '{"name": "weather", "arguments": {"city": "Oslo"}}'
CALL = f"<tool_call>\n{CALL_JSON}\n</tool_call>"


def tree_message(id_: str, parent: str | None, role: str, text: str, rank: int | None) -> dict[str, Any]:
    return {
        "message_id": id_,
        "parent_id": parent,
        "user_id": "7",
        "text": text,
        "role": role,
        "lang": "en",
        "review_count": 3,
        "deleted": False,
        "rank": rank,
        "message_tree_id": "1",
        "tree_state": "ready_for_export",
        "labels": {"name": ["spam"], "value": [0.0], "count": [3]},
    }


INSTRUCTIONS = [
    Layout(
        "tatsu-lab/alpaca",
        "LLaMA-Factory, torchtune",
        {
            "instruction": "Why is the sea blue?",
            "input": "",
            "output": "It scatters light.",
            "text": "Do it.\n\n### Instruction:\nWhy is the sea blue?\n\n### Response:\nIt scatters light.",
        },
        "instruction",
        PAIR,
        {"text": False},
        file="parquet",
        same=("vicgalle/alpaca-gpt4", "gbharti/finance-alpaca"),
    ),
    Layout(
        "yahma/alpaca-cleaned",
        "Axolotl, ms-swift",
        {"output": "A sea.", "input": "Blue and wide.", "instruction": "What is this?"},
        "instruction",
        u("What is this?\n\nBlue and wide.") + a("A sea."),
        same=(
            "sahil2801/CodeAlpaca-20k",
            "BelleGroup/train_1M_CN",
            "teknium/GPT4-LLM-Cleaned",
            "medalpaca/medical_meadow_medical_flashcards",
        ),
    ),
    Layout(
        "databricks/databricks-dolly-15k",
        "ms-swift, open-instruct",
        {
            "instruction": "Where is Bergen?",
            "context": "Bergen is in Norway.",
            "response": "Norway",
            "category": "closed_qa",
        },
        "instruction",
        u("Where is Bergen?\n\nBergen is in Norway.") + a("Norway"),
        {"category": False},
    ),
    Layout(
        "garage-bAInd/Open-Platypus",
        "LLaMA-Factory, Axolotl",
        {"input": "", "output": "It scatters light.", "instruction": "Why is the sea blue?", "data_source": "ARB"},
        "instruction",
        PAIR,
        {"data_source": False},
        file="parquet",
    ),
    Layout(
        "iamtarun/python_code_instructions_18k_alpaca",
        "unchecked",
        {
            "instruction": "Why is the sea blue?",
            "input": "",
            "output": "It scatters light.",
            "prompt": "### Instruction:\nWhy is the sea blue?\n\n### Output:\nIt scatters light.",
        },
        "instruction",
        PAIR,
        {"prompt": False},
        file="parquet",
    ),
    Layout(
        "ise-uiuc/Magicoder-Evol-Instruct-110K",
        "open-instruct",
        {"instruction": "Why is the sea blue?", "response": "It scatters light."},
        "instruction",
        PAIR,
    ),
    Layout(
        "TIGER-Lab/MathInstruct",
        "LLaMA-Factory",
        {"source": "data/CoT/gsm.json", "output": "It scatters light.", "instruction": "Why is the sea blue?"},
        "instruction",
        PAIR,
        {"source": False},
    ),
    Layout(
        "Open-Orca/OpenOrca",
        "LLaMA-Factory",
        {
            "id": "niv.1",
            "system_prompt": "Be brief.",
            "question": "Why is the sea blue?",
            "response": "It scatters light.",
        },
        "question",
        s("Be brief.") + PAIR,
        {"id": False},
        file="parquet",
    ),
    Layout(
        "YeungNLP/firefly-train-1.1M",
        "LLaMA-Factory",
        {"kind": "Translation", "input": "Why is the sea blue?", "target": "It scatters light."},
        "question",
        PAIR,
        {"kind": False},
    ),
    Layout(
        "CohereForAI/aya_dataset",
        "open-instruct, ms-swift",
        {
            "inputs": "Why is the sea blue?",
            "targets": "It scatters light.",
            "language": "English",
            "language_code": "eng",
            "annotation_type": "original-annotations",
            "user_id": "f0ff",
        },
        "question",
        PAIR,
        {"language": False, "language_code": False, "annotation_type": False, "user_id": False},
        file="parquet",
    ),
    Layout(
        "Samsung/samsum",
        "torchtune",
        {"id": "1", "dialogue": "Ann: Swim?\r\nBob: At six.", "summary": "They swim at six."},
        "question",
        u("Ann: Swim?\r\nBob: At six.") + a("They swim at six."),
        {"id": False},
    ),
    Layout(
        "abisee/cnn_dailymail",
        "torchtune",
        {"article": "The sea rose.", "highlights": "Sea rises.", "id": "f0"},
        "question",
        u("The sea rose.") + a("Sea rises."),
        {"id": False},
        file="parquet",
        where="config 3.0.0",
    ),
    Layout(
        "EdinburghNLP/xsum",
        "unchecked",
        {"document": "The sea rose.", "summary": "Sea rises.", "id": "1"},
        "question",
        u("The sea rose.") + a("Sea rises."),
        {"id": False},
    ),
    Layout(
        "rajpurkar/squad",
        "unchecked",
        {
            "id": "1",
            "title": "Bergen",
            "context": "Bergen is in Norway.",
            "question": "Where is Bergen?",
            "answers": {"text": ["Norway"], "answer_start": [13]},
        },
        "question",
        u("Where is Bergen?\n\nBergen is in Norway.") + a("Norway"),
        {"answers.answer_start": False, "id": False, "title": False},
        file="parquet",
    ),
    Layout(
        "b-mc2/sql-create-context",
        "ms-swift",
        {"answer": "SELECT a FROM t", "question": "Which a?", "context": "CREATE TABLE t (a INT)"},
        "question",
        u("Which a?\n\nCREATE TABLE t (a INT)") + a("SELECT a FROM t"),
    ),
    Layout(
        "qiaojin/PubMedQA",
        "code that loads it",
        {
            "pubid": 7,
            "question": "Does salt help?",
            "context": {
                "contexts": ["Salt was given.", "It helped."],
                "labels": ["METHODS", "RESULTS"],
                "meshes": ["Humans"],
                "reasoning_required_pred": ["y"],
            },
            "long_answer": "Salt helped.",
            "final_decision": "yes",
        },
        "question",
        u("Does salt help?\n\nSalt was given.\n\nIt helped.") + a("Salt helped."),
        {
            "context.labels": False,
            "context.meshes": False,
            "context.reasoning_required_pred": False,
            "pubid": False,
            "final_decision": False,
        },
        file="parquet",
        where="config pqa_labeled",
    ),
]

MATHS_AND_CODE = [
    Layout(
        "openai/gsm8k",
        "ms-swift",
        {"question": "1 + 2?", "answer": "One and two is <<1+2=3>>3.\n#### 3"},
        "question",
        u("1 + 2?") + a("One and two is <<1+2=3>>3.\n#### 3"),
        same=("microsoft/orca-math-word-problems-200k",),
        where="config main",
    ),
    Layout(
        "meta-math/MetaMathQA",
        "open-instruct",
        {
            "type": "MATH_Rephrased",
            "query": "What is one and two?",
            "original_question": "How much is one more than two?",
            "response": "3",
        },
        "question",
        u("What is one and two?") + a("3"),
        {"type": False, "original_question": True},
    ),
    Layout(
        "nvidia/OpenMathInstruct-2",
        "open-instruct",
        {
            "problem": "1 + 2?",
            "generated_solution": "It is 3.",
            "expected_answer": "3",
            "problem_source": "augmented_math",
        },
        "question",
        u("1 + 2?") + a("It is 3."),
        {"expected_answer": False, "problem_source": False},
        file="parquet",
    ),
    Layout(
        "AI-MO/NuminaMath-CoT",
        "Axolotl",
        {
            "source": "cn_k12",
            "problem": "Why is the sea blue?",
            "solution": "It scatters light.",
            "messages": [ASKED, TOLD],
        },
        "messages",
        PAIR,
        {"source": False, "problem": False, "solution": False},
        file="parquet",
    ),
    Layout(
        "AI-MO/NuminaMath-1.5",
        "code that loads it",
        {
            "problem": "1 + 2?",
            "solution": "One and two is 3.",
            "answer": "3",
            "problem_type": "Algebra",
            "question_type": "math-word-problem",
            "problem_is_valid": "Yes",
            "solution_is_valid": "Yes",
            "source": "olympiads",
            "synthetic": False,
        },
        "question",
        u("1 + 2?") + a("One and two is 3."),
        {
            "answer": False,
            "problem_type": False,
            "question_type": False,
            "problem_is_valid": False,
            "solution_is_valid": False,
            "source": False,
            "synthetic": False,
        },
        file="parquet",
    ),
    Layout(
        "ise-uiuc/Magicoder-OSS-Instruct-75K",
        "Magicoder's own code",
        {
            "lang": "python",
            "raw_index": 1,
            "index": 2,
            "seed": "def sea(): return 1 + 2",
            "openai_fingerprint": "fp_1",
            "problem": "Write sea.",
            "solution": "def sea(): ...",
        },
        "question",
        u("Write sea.") + a("def sea(): ..."),
        {"lang": False, "raw_index": False, "index": False, "seed": True, "openai_fingerprint": False},
    ),
    Layout(
        "m-a-p/CodeFeedback-Filtered-Instruction",
        "open-instruct",
        {"query": "Why is the sea blue?", "answer": "It scatters light.", "resource": "evolinstruct", "lang": "python"},
        "question",
        PAIR,
        {"resource": False, "lang": False},
    ),
    Layout(
        "nvidia/OpenCodeReasoning",
        "open-instruct",
        {
            "id": "1",
            "input": "Add two.",
            "output": "<think>\nEasy.\n</think>\n\n```python\na + b\n```",
            "source": "codeforces",
            "license": "cc-by-4.0",
            "dataset": "apps",
            "split": "train",
            "difficulty": "EASY",
            "solution": "a + b",
        },
        "question",
        u("Add two.") + a("<think>\nEasy.\n</think>\n\n```python\na + b\n```"),
        {
            "id": False,
            "source": False,
            "license": False,
            "dataset": False,
            "split": False,
            "difficulty": False,
            "solution": False,
        },
        file="parquet",
        where="config split_0",
    ),
]

CHATS = [
    Layout(
        "HuggingFaceH4/ultrachat_200k",
        "its card",
        {"prompt": "Why is the sea blue?", "prompt_id": "f0", "messages": [ASKED, TOLD, ASKED, NO]},
        "messages",
        PAIR + u("Why is the sea blue?") + a("It just is."),
        {"prompt": False, "prompt_id": False},
        file="parquet",
        same=("HuggingFaceH4/deita-10k-v0-sft",),
        where="split train_sft",
    ),
    Layout(
        "openbmb/UltraChat",
        "unchecked",
        {"id": "0", "data": ["Why is the sea blue?", "It scatters light.", "Always?", "Yes."]},
        "messages",
        PAIR + u("Always?") + a("Yes."),
        {"id": False},
        same=("stingning/ultrachat",),
    ),
    Layout(
        "HuggingFaceH4/no_robots",
        "unchecked",
        {
            "prompt": "Why is the sea blue?",
            "prompt_id": "f0",
            "messages": [message("system", "Be brief."), ASKED, TOLD],
            "category": "Chat",
        },
        "messages",
        s("Be brief.") + PAIR,
        {"prompt": False, "prompt_id": False, "category": False},
        file="parquet",
    ),
    Layout(
        "teknium/OpenHermes-2.5",
        "code that loads it",
        {
            "custom_instruction": None,
            "topic": None,
            "model_name": None,
            "model": None,
            "skip_prompt_formatting": False,
            "category": "orca",
            "conversations": [said("system", "Be brief."), HUMAN, GPT],
            "views": None,
            "language": None,
            "id": None,
            "title": None,
            "idx": None,
            "hash": None,
            "avatarUrl": None,
            "system_prompt": None,
            "source": "airoboros2.2",
        },
        "sharegpt",
        s("Be brief.") + PAIR,
        {"skip_prompt_formatting": False, "category": False, "source": False},
    ),
    Layout(
        "Open-Orca/SlimOrca",
        "LLaMA-Factory, torchtune",
        {
            "conversations": [
                said("system", "Be brief.", weight=None),
                said("human", "Why is the sea blue?", weight=0.0),
                said("gpt", "It scatters light.", weight=1.0),
            ]
        },
        "sharegpt",
        s("Be brief.") + PAIR,
    ),
    Layout(
        "mlabonne/FineTome-100k",
        "Axolotl",
        {"conversations": [HUMAN, GPT], "source": "infini-instruct-top-500k", "score": 5.2},
        "sharegpt",
        PAIR,
        {"source": False, "score": False},
        file="parquet",
    ),
    Layout(
        "WizardLM/WizardLM_evol_instruct_V2_196k",
        "LLaMA-Factory, open-instruct",
        {"idx": "1", "conversations": [HUMAN, GPT]},
        "sharegpt",
        PAIR,
        {"idx": False},
    ),
    Layout(
        "GAIR/lima",
        "open-instruct",
        {"conversations": ["Why is the sea blue?", "It scatters light."], "source": "stackexchange"},
        "messages",
        PAIR,
        {"source": False},
    ),
    Layout(
        "LDJnr/Capybara",
        "code that loads it",
        {
            "source": "Dove",
            "conversation": [
                {"input": "Why is the sea blue?", "output": "It scatters light."},
                {"input": "Always?", "output": "Yes."},
            ],
        },
        "messages",
        PAIR + u("Always?") + a("Yes."),
        {"source": False},
    ),
    Layout(
        "allenai/tulu-3-sft-mixture",
        "open-instruct",
        {"id": "oasst1_1", "messages": [ASKED, TOLD], "source": "ai2-adapt-dev/oasst1_converted"},
        "messages",
        PAIR,
        {"id": False, "source": False},
        file="parquet",
        same=("allenai/tulu-v2-sft-mixture",),
    ),
    Layout(
        "HuggingFaceTB/smoltalk",
        "the card of smol-smoltalk",
        {"messages": [ASKED, TOLD], "source": "smol-magpie-ultra"},
        "messages",
        PAIR,
        {"source": False},
        file="parquet",
        same=("HuggingFaceTB/smol-smoltalk",),
        where="config all",
    ),
    Layout(
        "BAAI/Infinity-Instruct",
        "LLaMA-Factory, code that loads it",
        {
            "id": 1,
            "conversations": [HUMAN, GPT],
            "label": {"ability_en": ["physics"], "cate_ability_en": ["knowledge"]},
            "langdetect": "en",
            "source": "Subjective",
        },
        "sharegpt",
        PAIR,
        {"id": False, "label": False, "langdetect": False, "source": False},
        file="parquet",
        where="config 7M",
    ),
    Layout(
        "Magpie-Align/Magpie-Pro-300K-Filtered",
        "LLaMA-Factory",
        {
            "uuid": "f0",
            "instruction": "Why is the sea blue?",
            "response": "It scatters light.",
            "conversations": [HUMAN, GPT],
            "gen_input_config": "temp=1.0",
            "intent": "The user asks about the sea.",
            "difficulty": "easy",
        },
        "sharegpt",
        PAIR,
        {
            "uuid": False,
            "instruction": False,
            "response": False,
            "gen_input_config": False,
            "intent": True,
            "difficulty": False,
        },
        file="parquet",
    ),
    Layout(
        "lmsys/lmsys-chat-1m",
        "LLaMA-Factory, open-instruct",
        {
            "conversation_id": "f0",
            "model": "vicuna-13b",
            "conversation": [ASKED, TOLD],
            "turn": 1,
            "language": "English",
            "openai_moderation": [{"categories": {"hate": False}, "category_scores": {"hate": 0.1}, "flagged": False}],
            "redacted": False,
        },
        "messages",
        PAIR,
        {
            "conversation_id": False,
            "model": False,
            "turn": False,
            "language": False,
            "openai_moderation": False,
            "redacted": False,
        },
        file="parquet",
    ),
    Layout(
        "allenai/WildChat-1M",
        "open-instruct",
        {
            "conversation_hash": "f0",
            "model": "gpt-4",
            "conversation": [
                {**ASKED, "country": "Norway", "language": "English", "turn_identifier": 1},
                {**TOLD, "country": None, "language": "English", "turn_identifier": 1},
            ],
            "turn": 1,
        },
        "messages",
        PAIR,
        {
            "conversation_hash": False,
            "model": False,
            "turn": False,
            "messages[].country": False,
            "messages[].language": False,
            "messages[].turn_identifier": False,
        },
        file="parquet",
    ),
    Layout(
        "OpenAssistant/oasst1",
        "Open-Assistant's own code",
        tree_message("1", None, "prompter", "Why is the sea blue?", None),
        "messages",
        PAIR,
        {
            "messages on other paths of the tree": False,
            "messages[].user_id": False,
            "messages[].lang": False,
            "messages[].review_count": False,
            "messages[].rank": False,
            "messages[].message_tree_id": False,
            "messages[].tree_state": False,
            "messages[].labels": False,
            "messages[].deleted": False,
        },
        file="parquet",
        same=("OpenAssistant/oasst2",),
        more=(
            tree_message("3", "1", "assistant", "It just is.", 1),
            tree_message("2", "1", "assistant", "It scatters light.", 0),
            tree_message("4", "2", "prompter", "Thanks.", 0),
        ),
    ),
    Layout(
        "timdettmers/openassistant-guanaco",
        "Axolotl",
        {"text": "### Human: Why is the sea blue?### Assistant: It scatters light."},
        "text",
        "⟦### Human: Why is the sea blue?### Assistant: It scatters light.<|im_end|>⟧",
    ),
]

REASONING = [
    Layout(
        "HuggingFaceTB/smoltalk2",
        "its card, TRL",
        {
            "messages": [ASKED, TOLD],
            "chat_template_kwargs": {
                "custom_instructions": "",
                "enable_thinking": False,
                "python_tools": [],
                "xml_tools": [],
            },
            "source": "smoltalk_no_think",
        },
        "messages",
        u("Why is the sea blue?") + "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦It scatters light.<|im_end|>⟧\n",
        {"source": False},
        template=QWEN3,
        file="parquet",
        where="config SFT, many splits",
    ),
    Layout(
        "open-r1/Mixture-of-Thoughts",
        "unchecked",
        {
            "messages": [ASKED, message("assistant", f"<think>\n{THOUGHT}\n</think>\n\nIt scatters light.")],
            "num_tokens": 12,
            "source": "open-r1/OpenR1-Math-220k",
        },
        "messages",
        u("Why is the sea blue?") + a(f"<think>\n{THOUGHT}\n</think>\n\nIt scatters light."),
        {"num_tokens": False, "source": False},
        template=QWEN3,
        file="parquet",
        where="config all",
    ),
    Layout(
        "open-r1/OpenR1-Math-220k",
        "code that loads it",
        {
            "problem": "Why is the sea blue?",
            "solution": "Look at how water scatters light.",
            "answer": "It scatters light.",
            "problem_type": "Physics",
            "source": "olympiads",
            "uuid": "f0",
            "is_reasoning_complete": [True, False],
            "generations": ["It scatters light.", "Hm."],
            "correctness_math_verify": [True, False],
            "messages": [ASKED, TOLD],
        },
        "messages",
        PAIR,
        {
            "problem": False,
            "solution": True,
            "answer": False,
            "problem_type": False,
            "source": False,
            "uuid": False,
            "is_reasoning_complete": False,
            "generations": False,
            "correctness_math_verify": False,
        },
        file="parquet",
    ),
    Layout(
        "open-thoughts/OpenThoughts-114k",
        "LLaMA-Factory",
        {
            "system": "Think first.",
            "conversations": [
                said("user", "Why is the sea blue?"),
                said("assistant", f"<|begin_of_thought|>\n{THOUGHT}\n<|end_of_thought|>\n\nIt scatters light."),
            ],
        },
        "sharegpt",
        s("Think first.")
        + u("Why is the sea blue?")
        + a(f"<|begin_of_thought|>\n{THOUGHT}\n<|end_of_thought|>\n\nIt scatters light."),
        file="parquet",
        same=("bespokelabs/Bespoke-Stratos-17k",),
    ),
    Layout(
        "open-thoughts/OpenThoughts3-1.2M",
        "code that loads it",
        {"difficulty": 7, "source": "ai2-adapt-dev", "domain": "math", "conversations": [HUMAN, GPT]},
        "sharegpt",
        PAIR,
        {"difficulty": False, "source": False, "domain": False},
        file="parquet",
    ),
    Layout(
        "simplescaling/s1K",
        "code that loads it",
        {
            "solution": "128",
            "question": "Why is the sea blue?",
            "cot_type": "math",
            "source_type": "qfq/numinamath",
            "metadata": "{'solution': '128'}",
            "cot": None,
            "thinking_trajectories": [THOUGHT],
            "attempt": "It scatters light.",
        },
        "question",
        u("Why is the sea blue?") + a(f"<think>\n{THOUGHT}\n</think>\n\nIt scatters light."),
        {"solution": True, "cot_type": False, "source_type": False, "metadata": False},
        template=QWEN3,
        file="parquet",
    ),
    Layout(
        "simplescaling/s1K-1.1",
        "code that loads it",
        {
            "solution": "128",
            "question": "Why is the sea blue?",
            "cot_type": "math",
            "gemini_thinking_trajectory": "The sky, they say, is in it.",
            "gemini_attempt": "Because of the sky.",
            "deepseek_thinking_trajectory": THOUGHT,
            "deepseek_attempt": "It scatters light.",
        },
        "question",
        u("Why is the sea blue?") + a(f"<think>\n{THOUGHT}\n</think>\n\nIt scatters light."),
        {"solution": True, "cot_type": False, "gemini_thinking_trajectory": True, "gemini_attempt": False},
        template=QWEN3,
        file="parquet",
    ),
    Layout(
        "FreedomIntelligence/medical-o1-reasoning-SFT",
        "code that loads it",
        {"Question": "Why is the sea blue?", "Complex_CoT": THOUGHT, "Response": "It scatters light."},
        "question",
        u("Why is the sea blue?") + a(f"<think>\n{THOUGHT}\n</think>\n\nIt scatters light."),
        template=QWEN3,
        where="config en",
    ),
    Layout(
        "Congliu/Chinese-DeepSeek-R1-Distill-data-110k",
        "code that loads it",
        {
            "input": "Why is the sea blue?",
            "reasoning_content": THOUGHT,
            "content": "It scatters light.",
            "repo_name": "gavin",
            "prompt_tokens_len": 8,
            "score": 9,
        },
        "question",
        u("Why is the sea blue?") + a(f"<think>\n{THOUGHT}\n</think>\n\nIt scatters light."),
        {"repo_name": False, "prompt_tokens_len": False, "score": False},
        template=QWEN3,
    ),
    Layout(
        "HuggingFaceH4/Multilingual-Thinking",
        "Axolotl",
        {
            "reasoning_language": "English",
            "developer": "Be brief.",
            "user": "Why is the sea blue?",
            "analysis": THOUGHT,
            "final": "It scatters light.",
            "messages": [
                message("system", "Be brief.", thinking=None),
                {**ASKED, "thinking": None},
                {**TOLD, "thinking": THOUGHT},
            ],
        },
        "messages",
        s("Be brief.") + u("Why is the sea blue?") + a(f"<think>\n{THOUGHT}\n</think>\n\nIt scatters light."),
        {"reasoning_language": False, "developer": False, "user": False, "analysis": False, "final": False},
        template=QWEN3,
        file="parquet",
    ),
    Layout(
        "nvidia/Llama-Nemotron-Post-Training-Dataset",
        "open-instruct",
        {
            "version": "v1",
            "input": [ASKED],
            "output": f"<think>\n{THOUGHT}\n</think>\n\nIt scatters light.",
            "category": "science",
            "license": "cc-by-4.0",
            "reasoning": "on",
            "generator": "DeepSeek-R1",
            "used_in_training": "Ultra",
            "system_prompt": "detailed thinking on",
        },
        "question",
        s("detailed thinking on")
        + u("Why is the sea blue?")
        + a(f"<think>\n{THOUGHT}\n</think>\n\nIt scatters light."),
        {
            "version": False,
            "category": False,
            "license": False,
            "reasoning": False,
            "generator": False,
            "used_in_training": False,
        },
        where="config SFT, splits math, code, science, chat, safety",
    ),
]

TOOLS = [
    Layout(
        "glaiveai/glaive-function-calling-v2",
        "its card and code that loads it",
        {
            "system": f"SYSTEM: You are a helpful assistant with these functions -\n{WEATHER_JSON}",
            "chat": "USER: Rain in Oslo?\n\n\nASSISTANT: <functioncall> "
            + '{"name": "weather", "arguments": \'{"city": "Oslo"}\'} <|endoftext|>\n\n\n'
            + 'FUNCTION RESPONSE: {"rain": 1}\n\n\nASSISTANT: It rains. <|endoftext|>\n\n\n',
        },
        "messages",
        s(f"You are a helpful assistant with these functions -\n{WEATHER_JSON}")
        + u("Rain in Oslo?")
        + a(CALL)
        + result('{"rain": 1}')
        + a("It rains."),
        template="chatml-tools",
    ),
    Layout(
        "hiyouga/glaive-function-calling-v2-sharegpt",
        "LLaMA-Factory",
        {
            "conversations": [
                said("human", "Rain in Oslo?"),
                said("function_call", CALL_JSON),
                said("observation", '{"rain": 1}'),
                said("gpt", "It rains."),
            ],
            "tools": f"[{WEATHER_JSON}]",
        },
        "sharegpt",
        tools(WRAPPED_JSON) + u("Rain in Oslo?") + a(CALL) + result('{"rain": 1}') + a("It rains."),
        template="chatml-tools",
    ),
    Layout(
        "Salesforce/xlam-function-calling-60k",
        "its card, ms-swift",
        {"id": 0, "query": "Rain in Oslo?", "answers": f"[{CALL_JSON}]", "tools": f"[{WEATHER_JSON}]"},
        "question",
        tools(WRAPPED_JSON) + u("Rain in Oslo?") + a(CALL),
        {"id": False},
        template="chatml-tools",
        where="config dataset",
    ),
    Layout(
        "NousResearch/hermes-function-calling-v1",
        "code that loads it",
        {
            "id": "f0",
            "conversations": [
                said("system", f"You are a function calling AI model. <tools> [{WRAPPED_JSON}] </tools>"),
                said("human", "Rain in Oslo?"),
                said("gpt", f"<tool_call>\n{CALL_JSON}\n</tool_call>"),
                said("tool", '<tool_response>\n{"rain": 1}\n</tool_response>\n'),
                said("gpt", "It rains."),
            ],
            "tools": f"[{WRAPPED_JSON}]",
            "category": "Weather",
            "task": "Forecast",
        },
        "sharegpt",
        s(f"You are a function calling AI model. <tools> [{WRAPPED_JSON}] </tools>")
        + u("Rain in Oslo?")
        + a(CALL)
        + result('{"rain": 1}')
        + a("It rains."),
        {"tools": False, "id": False, "category": False, "task": False},
        template="chatml-tools",
        where="configs func_calling_singleturn, func_calling, glaive_func_calling, json_mode_…",
    ),
    Layout(
        "Locutusque/function-calling-chatml",
        "its card",
        {
            "system_message": "You are a helpful assistant, with no functions.",
            "function_description": f"{WEATHER_JSON}\n\n{WEATHER_JSON.replace('weather', 'tides')}",
            "conversations": [
                said("human", "Rain in Oslo?"),
                said("function-call", '{"name": "weather", "arguments": \'{"city": "Oslo"}\'}'),
                said("function-response", '{"rain": 1}'),
                said("gpt", "It rains."),
            ],
        },
        "sharegpt",
        tools(
            f"{WRAPPED_JSON}\n{WRAPPED_JSON.replace('weather', 'tides')}",
            "You are a helpful assistant, with no functions.",
        )
        + u("Rain in Oslo?")
        + a(CALL)
        + result('{"rain": 1}')
        + a("It rains."),
        template="chatml-tools",
        file="parquet",
    ),
    Layout(
        "Team-ACE/ToolACE",
        "code that loads it",
        {
            "system": f"You can call functions. Here is a list: [{WEATHER_JSON}]",
            "conversations": [
                said("user", "Rain in Oslo?"),
                said("assistant", '[weather(city="Oslo")]'),
                said("tool", '[{"name": "weather", "results": {"rain": 1}}]'),
                said("assistant", "It rains."),
            ],
        },
        "sharegpt",
        s(f"You can call functions. Here is a list: [{WEATHER_JSON}]")
        + u("Rain in Oslo?")
        + a('[weather(city="Oslo")]')
        + result('[{"name": "weather", "results": {"rain": 1}}]')
        + a("It rains."),
        template="chatml-tools",
    ),
    Layout(
        "Salesforce/APIGen-MT-5k",
        "code that loads it",
        {
            "conversations": [
                said("human", "Rain in Oslo?"),
                said("function_call", CALL_JSON),
                said("observation", '{"rain": 1}'),
                said("gpt", "It rains."),
            ],
            "tools": f"[{WEATHER_JSON}]",
            "system": "Follow the policy.",
        },
        "sharegpt",
        tools(WRAPPED_JSON, "Follow the policy.")
        + u("Rain in Oslo?")
        + a(CALL)
        + result('{"rain": 1}')
        + a("It rains."),
        template="chatml-tools",
    ),
    Layout(
        "Agent-Ark/Toucan-1.5M",
        "its card",
        {
            "uuid": "f0",
            "subset_name": "single-turn-original",
            "messages": '[{"role": "user", "content": "Rain in Oslo?"}, {"role": "assistant", "content": "", '
            f'"function_call": {CALL_JSON}}}, {{"role": "function", "content": "rain", "name": "weather"}}, '
            '{"role": "assistant", "content": "It rains."}]',
            "question": "Rain in Oslo?",
            "available_tools": f"[{WRAPPED_JSON}]",
            "target_tools": "weather",
            "question_quality_assessment": '{"score": 5}',
            "metadata": "{}",
        },
        "messages",
        tools(WRAPPED_JSON) + u("Rain in Oslo?") + a(CALL) + result("rain") + a("It rains."),
        {
            "uuid": False,
            "subset_name": False,
            "question": False,
            "target_tools": False,
            "question_quality_assessment": False,
            "metadata": False,
            "messages[].name": False,
        },
        template="chatml-tools",
        file="parquet",
        where="configs Kimi-K2, OSS, Qwen3",
    ),
]

TEXTS = [
    Layout(
        "Salesforce/wikitext",
        "torchtune",
        {"text": " The sea is blue . \n"},
        "text",
        "⟦ The sea is blue . \n<|im_end|>⟧",
        file="parquet",
        same=("roneneldan/TinyStories",),
        where="config wikitext-103-raw-v1",
    ),
    Layout(
        "HuggingFaceFW/fineweb-edu",
        "LLaMA-Factory, Axolotl",
        {
            "text": "The sea is blue.",
            "id": "<urn:uuid:1>",
            "dump": "CC-MAIN-2024-10",
            "url": "https://sea.example",
            "file_path": "s3://x",
            "language": "en",
            "language_score": 0.9,
            "token_count": 5,
            "score": 3.1,
            "int_score": 3,
        },
        "text",
        "⟦The sea is blue.<|im_end|>⟧",
        {
            "id": False,
            "dump": False,
            "url": False,
            "file_path": False,
            "language": False,
            "language_score": False,
            "token_count": False,
            "score": False,
            "int_score": False,
        },
        file="parquet",
        same=("HuggingFaceFW/fineweb",),
    ),
    Layout(
        "allenai/c4",
        "ms-swift, Axolotl",
        {"text": "The sea is blue.", "timestamp": "2019-04-25T12:57:54Z", "url": "https://sea.example"},
        "text",
        "⟦The sea is blue.<|im_end|>⟧",
        {"timestamp": False, "url": False},
        where="config en",
    ),
    Layout(
        "HuggingFaceTB/cosmopedia",
        "LLaMA-Factory",
        {
            "prompt": "Write about the blue sea.",
            "text_token_length": 5,
            "text": "The sea is blue.",
            "seed_data": "web",
            "format": "textbook",
            "audience": "students",
        },
        "text",
        "⟦The sea is blue.<|im_end|>⟧",
        {"prompt": True, "text_token_length": False, "seed_data": False, "format": False, "audience": False},
        file="parquet",
        where="config stories",
    ),
    Layout(
        "bigcode/starcoderdata",
        "LLaMA-Factory",
        {
            "max_stars_repo_path": "a.py",
            "max_stars_repo_name": "a/b",
            "max_stars_count": 3,
            "id": "1",
            "content": "a = 1\n",
        },
        "text",
        "⟦a = 1\n<|im_end|>⟧",
        {"max_stars_repo_path": False, "max_stars_repo_name": False, "max_stars_count": False, "id": False},
        file="parquet",
    ),
]

CHOSEN_TEXT, REJECTED_TEXT = "It scatters light.", "It just is."

PREFERENCES = [
    Layout(
        "Anthropic/hh-rlhf",
        "TRL, ms-swift",
        {
            "chosen": "\n\nHuman: Why is the sea blue?\n\nAssistant: It scatters light.",
            "rejected": "\n\nHuman: Why is the sea blue?\n\nAssistant: It just is.",
        },
        "preference",
        CHOSEN,
        cure="data.columns={messages: chosen}",
        where="folders helpful-base, harmless-base, …",
    ),
    Layout(
        "HuggingFaceH4/ultrafeedback_binarized",
        "unchecked",
        {
            "prompt": "Why is the sea blue?",
            "prompt_id": "f0",
            "chosen": [ASKED, TOLD],
            "rejected": [ASKED, NO],
            "messages": [ASKED, TOLD],
            "score_chosen": 8.0,
            "score_rejected": 4.0,
        },
        "preference",
        CHOSEN,
        cure="data.columns={messages: chosen}",
        file="parquet",
        where="split train_prefs",
    ),
    Layout(
        "trl-lib/ultrafeedback_binarized",
        "TRL",
        {"chosen": [ASKED, TOLD], "rejected": [ASKED, NO], "score_chosen": 8.0, "score_rejected": 4.0},
        "preference",
        CHOSEN,
        cure="data.columns={messages: chosen}",
        file="parquet",
        same=("argilla/dpo-mix-7k", "Skywork/Skywork-Reward-Preference-80K-v0.2"),
    ),
    Layout(
        "argilla/ultrafeedback-binarized-preferences-cleaned",
        "Axolotl",
        {
            "source": "evol_instruct",
            "prompt": "Why is the sea blue?",
            "chosen": [ASKED, TOLD],
            "chosen-rating": 5.0,
            "chosen-model": "gpt-4",
            "rejected": [ASKED, NO],
            "rejected-rating": 2.0,
            "rejected-model": "llama",
        },
        "preference",
        CHOSEN,
        cure="data.columns={messages: chosen}",
        file="parquet",
        same=("allenai/llama-3.1-tulu-3-8b-preference-mixture", "mlabonne/orpo-dpo-mix-40k"),
    ),
    Layout(
        "Intel/orca_dpo_pairs",
        "LLaMA-Factory, ms-swift",
        {"system": "Be brief.", "question": "Why is the sea blue?", "chosen": CHOSEN_TEXT, "rejected": REJECTED_TEXT},
        "preference",
        CHOSEN,
        cure="data.columns={prompt: question, reply: chosen, system: system}",
    ),
    Layout(
        "argilla/distilabel-intel-orca-dpo-pairs",
        "Axolotl",
        {
            "system": "",
            "input": "Why is the sea blue?",
            "chosen": CHOSEN_TEXT,
            "rejected": REJECTED_TEXT,
            "generations": [CHOSEN_TEXT, REJECTED_TEXT],
            "rating": [9.0, 3.0],
            "status": "unchanged",
        },
        "preference",
        CHOSEN,
        cure="data.columns={prompt: input, reply: chosen, system: system}",
        file="parquet",
    ),
    Layout(
        "jondurbin/truthy-dpo-v0.1",
        "unchecked",
        {
            "id": "f0",
            "source": "truthy_dpo",
            "system": "Be brief.",
            "prompt": "Why is the sea blue?",
            "chosen": CHOSEN_TEXT,
            "rejected": REJECTED_TEXT,
        },
        "preference",
        CHOSEN,
        cure="data.columns={prompt: prompt, reply: chosen, system: system}",
    ),
    Layout(
        "argilla/distilabel-capybara-dpo-7k-binarized",
        "unchecked",
        {
            "source": "Dove",
            "conversation": [{"input": "Why is the sea blue?", "output": CHOSEN_TEXT}],
            "original_response": CHOSEN_TEXT,
            "prompt": "Why is the sea blue?",
            "chosen": [ASKED, TOLD],
            "rejected": [ASKED, NO],
            "rating_chosen": 5,
            "rating_rejected": 2,
        },
        "preference",
        CHOSEN,
        cure="data.columns={messages: chosen}",
        file="parquet",
    ),
    Layout(
        "llamafactory/DPO-En-Zh-20k",
        "LLaMA-Factory",
        {"conversations": [HUMAN], "chosen": GPT, "rejected": said("gpt", "It just is.")},
        "preference",
        CHOSEN,
        cure="data.columns={prompt: conversations, reply: chosen}",
    ),
    Layout(
        "lvwerra/stack-exchange-paired",
        "torchtune",
        {
            "qid": 1,
            "question": "Why is the sea blue?",
            "date": "2011/01/11",
            "metadata": ["https://x.example"],
            "response_j": CHOSEN_TEXT,
            "response_k": REJECTED_TEXT,
        },
        "preference",
        CHOSEN,
        cure="data.columns={prompt: question, reply: response_j}",
        file="parquet",
    ),
    Layout(
        "PKU-Alignment/PKU-SafeRLHF",
        "code that loads it",
        {
            "prompt": "Why is the sea blue?",
            "response_0": CHOSEN_TEXT,
            "response_1": REJECTED_TEXT,
            "is_response_0_safe": True,
            "is_response_1_safe": True,
            "better_response_id": 0,
            "safer_response_id": 0,
        },
        "preference",
        "two responses to each prompt, response_0 and response_1; better_response_id names the better one",
        cure="data.columns={prompt: prompt, reply: response_0}",
    ),
    Layout(
        "stanfordnlp/SHP",
        "its card",
        {
            "post_id": "q",
            "domain": "askscience_train",
            "upvote_ratio": 0.98,
            "history": "Why is the sea blue?",
            "human_ref_A": CHOSEN_TEXT,
            "human_ref_B": REJECTED_TEXT,
            "labels": 1,
            "score_ratio": 2.0,
        },
        "preference",
        "two responses to each prompt, human_ref_A and human_ref_B; labels names the better one",
        cure="data.columns={prompt: history, reply: human_ref_A}",
    ),
    Layout(
        "nvidia/HelpSteer3",
        "its card",
        {
            "domain": "stem",
            "language": "english",
            "context": [ASKED],
            "response1": CHOSEN_TEXT,
            "response2": REJECTED_TEXT,
            "overall_preference": -2,
            "individual_preference": [{"score": -2, "reasoning": "The first says why."}],
        },
        "preference",
        "two responses to each prompt, response1 and response2; overall_preference names the better one",
        cure="data.columns={prompt: context, reply: response1}",
        where="config preference",
    ),
    Layout(
        "berkeley-nest/Nectar",
        "open-instruct",
        {
            "prompt": "\n\nHuman: Why is the sea blue? \n\nAssistant: ",
            "answers": [
                {"answer": CHOSEN_TEXT, "model": "gpt-4", "rank": 1.0},
                {"answer": REJECTED_TEXT, "model": "llama", "rank": 2.0},
            ],
            "turns": 1,
            "num_responses": 2,
            "source": ["sharegpt"],
            "good_natured": True,
        },
        "preference",
        "several rated responses to each prompt, in answers",
        cure="Write the best one of each record to a column response, beside its prompt.",
        file="parquet",
    ),
    Layout(
        "openbmb/UltraFeedback",
        "TRL",
        {
            "source": "evol_instruct",
            "instruction": "Why is the sea blue?",
            "models": ["gpt-4", "llama"],
            "completions": [
                {"model": "gpt-4", "response": CHOSEN_TEXT, "overall_score": 9.0},
                {"model": "llama", "response": REJECTED_TEXT, "overall_score": 3.0},
            ],
        },
        "preference",
        "several rated responses to each prompt, in completions",
        cure="Write the best one of each record to a column response, beside its prompt.",
    ),
    Layout(
        "trl-lib/kto-mix-14k",
        "TRL",
        {"prompt": [ASKED], "completion": [TOLD], "label": True},
        "preference",
        "responses that label marks as good or bad (KTO)",
        cure="set data.format to prompt",
        file="parquet",
        same=("argilla/ultrafeedback-binarized-preferences-cleaned-kto",),
    ),
    Layout(
        "argilla/kto-mix-15k",
        "LLaMA-Factory",
        {"dataset": "capybara", "completion": [ASKED, TOLD], "label": True, "rating": 5.0},
        "preference",
        "responses that label marks as good or bad (KTO)",
        cure="set data.columns={messages: completion}",
        file="parquet",
    ),
    Layout(
        "trl-lib/prm800k",
        "TRL",
        {"prompt": "1 + 2?", "completions": ["One.", "Then two."], "labels": [True, False]},
        "preference",
        "steps of a response, each labeled as right or wrong",
        cure="Join the steps of each right response to a column completion",
        file="parquet",
        same=("trl-lib/math_shepherd",),
    ),
    Layout(
        "nvidia/HelpSteer2",
        "its card, open-instruct",
        {
            "prompt": "Why is the sea blue?",
            "response": "It scatters light.",
            "helpfulness": 4,
            "correctness": 4,
            "coherence": 4,
            "complexity": 1,
            "verbosity": 1,
        },
        "prompt",
        PAIR,
        {"helpfulness": False, "correctness": False, "coherence": False, "complexity": False, "verbosity": False},
    ),
]

SETS = {
    "Instructions and questions": INSTRUCTIONS,
    "Mathematics and code": MATHS_AND_CODE,
    "Conversations": CHATS,
    "Reasoning": REASONING,
    "Calls of tools": TOOLS,
    "Text for continued pretraining": TEXTS,
    "Preferences": PREFERENCES,
}
