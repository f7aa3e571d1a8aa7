"""Records through the real chat templates of models, as TRL ships them: the text and what is trained, by hand.

A token is a byte here, so that the text between ⟦ and ⟧ is the ids and the mask.
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.data.mistral_templates import LISTED
from tests.data.test_records import WRAPPED, tokenizer_of_bytes
from tests.data.test_tools_and_reasoning import TEMPLATES
from workbench.data.sources import load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.recipe.sections.data import DataSection

TALK = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "Yes."},
    ]
}
THOUGHT = {
    "messages": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So.", "reasoning_content": "Hm."},
    ]
}
CALLED = {
    "messages": [
        {"role": "user", "content": "Rain?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}],
        },
        {"role": "tool", "name": "weather", "content": "yes"},
        {"role": "assistant", "content": "It rains."},
    ],
    "tools": json.dumps([WRAPPED]),
}

QWEN_TALK = (
    "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n⟦So.<|im_end|>⟧\n"
    "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
)
# Where the template takes the reasoning out of earlier turns, the last response alone is trained.
QWEN_LAST = (
    "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n"
    "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
)
# How Qwen writes calls since 3.5.
QWEN_CALL = "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"
TEXTS: dict[tuple[str, str], str] = {
    ("talk", "llama3_1"): "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦So.<|eot_id|>⟧"
    "<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Yes.<|eot_id|>⟧",
    ("talk", "llama3"): "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦So.<|eot_id|>⟧"
    "<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Yes.<|eot_id|>⟧",
    ("talk", "qwen2_5"): QWEN_TALK,
    ("talk", "qwen3_instruct_2507"): QWEN_TALK,
    ("talk", "qwen3"): QWEN_LAST + "⟦<think>\n\n</think>\n\nYes.<|im_end|>⟧\n",
    ("talk", "qwen3_6"): QWEN_LAST + "<think>\n⟦\n</think>\n\nYes.<|im_end|>⟧\n",
    ("talk", "qwen3_5_think"): QWEN_LAST + "<think>\n⟦\n</think>\n\nYes.<|im_end|>⟧\n",
    ("talk", "qwen3_5_nothink"): QWEN_LAST + "<think>\n\n</think>\n\n⟦Yes.<|im_end|>⟧\n",
    ("talk", "glm4moe"): "[gMASK]<sop><|system|>\nBe kind.<|user|>\nWhy?<|assistant|>⟦\n<think></think>\nSo.⟧"
    "<|user|>\nAnd?<|assistant|>⟦\n<think></think>\nYes.⟧",
    ("talk", "gemma4_v5"): "<s><|turn>system\nBe kind.<turn|>\n<|turn>user\nWhy?<turn|>\n<|turn>model\n⟦So.<turn|>⟧\n"
    "<|turn>user\nAnd?<turn|>\n<|turn>model\n⟦Yes.<turn|>⟧\n",
    ("talk", "phi3_5"): "<|system|>\nBe kind.<|end|>\n<|user|>\nWhy?<|end|>\n<|assistant|>\n⟦So.<|end|>⟧\n"
    "<|user|>\nAnd?<|end|>\n<|assistant|>\n⟦Yes.<|end|>\n<|im_end|>⟧",
    (
        "talk",
        "gemma3",
    ): "<s><start_of_turn>user\nBe kind.\n\nWhy?<end_of_turn>\n<start_of_turn>model\n⟦So.<end_of_turn>⟧\n"
    "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n⟦Yes.<end_of_turn>⟧\n",
    ("talk", "gemma4"): "<s><|turn>system\nBe kind.<turn|>\n<|turn>user\nWhy?<turn|>\n<|turn>model\n⟦So.<turn|>⟧\n"
    "<|turn>user\nAnd?<turn|>\n<|turn>model\n⟦Yes.<turn|>⟧\n",
    ("talk", "phi3"): "<|system|>\nBe kind.<|end|>\n<|user|>\nWhy?<|end|>\n<|assistant|>\n⟦So.<|end|>⟧\n"
    "<|user|>\nAnd?<|end|>\n<|assistant|>\n⟦Yes.<|end|>\n<|im_end|>⟧",
    ("talk", "deepseekv3"): "<s>Be kind.<｜User｜>Why?<｜Assistant｜>So.<｜end▁of▁sentence｜>"
    "<｜User｜>And?<｜Assistant｜><think>\n⟦Yes.<｜end▁of▁sentence｜>⟧",
    ("talk", "gptoss"): "<|start|>user<|message|>Why?<|end|><|start|>assistant<|channel|>final<|message|>So.<|end|>"
    "<|start|>user<|message|>And?<|end|><|start|>assistant⟦<|channel|>final<|message|>Yes.<|return|>⟧",
    ("thought", "qwen3"): "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    "⟦<think>\nHm.\n</think>\n\nSo.<|im_end|>⟧\n",
    ("thought", "qwen3_6"): "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    "⟦Hm.\n</think>\n\nSo.<|im_end|>⟧\n",
    ("thought", "qwen3_5_think"): "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    "⟦Hm.\n</think>\n\nSo.<|im_end|>⟧\n",
    # Its prompt says that there is no reasoning: the record's is left out, and named.
    ("thought", "qwen3_5_nothink"): "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    "⟦So.<|im_end|>⟧",
    (
        "thought",
        "gptoss",
    ): "<|start|>user<|message|>Why?<|end|><|start|>assistant⟦<|channel|>analysis<|message|>Hm.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>So.<|return|>⟧",
    ("thought", "glm4moe"): "[gMASK]<sop><|user|>\nWhy?<|assistant|>⟦\n<think>Hm.</think>\nSo.⟧",
    ("thought", "lfm2_2_5"): "<s><|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    "⟦<think>Hm.</think>So.<|im_end|>⟧\n",
    ("called", "qwen2_5"): "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n"
    '⟦<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>⟧\n'
    "<|im_start|>user\n<tool_response>\nyes\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\n⟦It rains.<|im_end|>⟧\n",
    # Without reasoning, a call that was the last turn loses its empty mark once an answer follows.
    ("called", "qwen3"): "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n"
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>\n'
    "<|im_start|>user\n<tool_response>\nyes\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nIt rains.<|im_end|>⟧\n",
    ("called", "qwen3_5_think"): "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    f"⟦\n</think>\n\n{QWEN_CALL}<|im_end|>⟧\n"
    "<|im_start|>user\n<tool_response>\nyes\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\n<think>\n⟦\n</think>\n\nIt rains.<|im_end|>⟧\n",
    ("called", "qwen3_5_nothink"): "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    f"⟦{QWEN_CALL}<|im_end|>⟧\n"
    "<|im_start|>user\n<tool_response>\nyes\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦It rains.<|im_end|>⟧\n",
    ("called", "glm4moe"): "<|user|>\nRain?<|assistant|>⟦\n<think></think>\n<tool_call>weather\n"
    "<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>⟧"
    "<|observation|>\n<tool_response>\nyes\n</tool_response><|assistant|>⟦\n<think></think>\nIt rains.⟧",
    ("called", "llama3_2"): "Rain?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    '⟦{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>⟧'
    '<|start_header_id|>ipython<|end_header_id|>\n\n"yes"<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦It rains.<|eot_id|>⟧",
    ("called", "llama3_1"): "Rain?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    '⟦{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>⟧'
    '<|start_header_id|>ipython<|end_header_id|>\n\n"yes"<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦It rains.<|eot_id|>⟧",
    ("called", "gptoss"): "<|start|>user<|message|>Rain?<|end|><|start|>assistant"
    '⟦ to=functions.weather<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>⟧'
    '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"yes"<|end|>'
    "<|start|>assistant⟦<|channel|>final<|message|>It rains.<|return|>⟧",
    ("called", "gemma4"): "<|turn>user\nRain?<turn|>\n<|turn>model\n"
    '⟦<|tool_call>call:weather{city:<|"|>Oslo<|"|>}<tool_call|><|tool_response>⟧'
    'response:weather{value:<|"|>yes<|"|>}<tool_response|>⟦It rains.<turn|>⟧\n',
    ("called", "mistral"): "[INST] Rain?[/INST]"
    '⟦[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "ID"}]<|im_end|>⟧'
    '[TOOL_RESULTS] {"content": "yes", "call_id": "ID"}[/TOOL_RESULTS]⟦ It rains.<|im_end|>⟧',
}
RECORDS: dict[str, dict[str, Any]] = {"talk": TALK, "thought": THOUGHT, "called": CALLED}


def _write(name: str, record: dict[str, Any], folder: Path) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist([record]), path)
    elif name.endswith(".csv"):
        cells = [value if isinstance(value, str) else json.dumps(value) for value in record.values()]
        quoted = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)
        path.write_text(",".join(record) + "\n" + quoted + "\n")
    else:
        path.write_text(json.dumps(record) + "\n")
    return path


@pytest.mark.parametrize("source", ["set.jsonl", "set.parquet", "set.csv"])
@pytest.mark.parametrize("case", TEXTS, ids="-".join)
def test_text_and_mask(case: tuple[str, str], source: str, tmp_path: Path) -> None:
    kind, name = case
    tokenizer = tokenizer_of_bytes()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>", "<turn|>", "<|eot_id|>", "<|end|>"]})
    template = Template.for_model(tokenizer, LISTED if name == "mistral" else str(TEMPLATES / f"{name}.jinja"))
    data = DataSection(source=str(_write(source, RECORDS[kind], tmp_path)), eval_fraction=0.0, max_length=100_000)
    encoded = encode_dataset(load_records(data), template, data)
    (row,) = encoded.train
    lost = ["messages[].reasoning_content"] if case == ("thought", "qwen3_5_nothink") else []
    assert [field.path for field in encoded.facts.unused if field.asks] == lost
    text = ""
    for trained, run in groupby(zip(row["input_ids"], row["labels"], strict=True), key=lambda pair: pair[1] != -100):
        ids = [token for token, label in run]
        part = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        text += f"⟦{part}⟧" if trained else part
    if name == "mistral":  # it gets an id, as Mistral's templates need one
        text = text.replace(text.partition('"id": "')[2][:9], "ID")
    assert text.endswith(TEXTS[case])
    if kind == "talk" and name != "gptoss":  # what precedes tools and dates differs from day to day
        assert text == TEXTS[case]
