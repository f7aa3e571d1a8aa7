"""The chat templates that can be chosen by name, as Jinja source.

Like a model's own chat template, each receives ``messages`` and ``add_generation_prompt``; also ``end``, the text that
ends a reply. A prompt ends exactly where the model starts to write. So a space after ``Assistant:`` belongs to the
reply, because tokenizers of the GPT-2 family join it to the next word.
"""

INSTRUCTION_RESPONSE = r"""{%- for message in messages %}
{%- if message.role == 'system' %}
{{- message.content | trim + '\n\n' }}
{%- elif message.role == 'user' %}
{{- '### Instruction:\n' + message.content | trim + '\n\n' }}
{%- else %}
{{- '### Response:\n' + message.content | trim + end + ('' if loop.last else '\n\n') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '### Response:\n' }}{% endif %}"""

USER_ASSISTANT = r"""{%- for message in messages %}
{%- if message.role == 'system' %}
{{- message.content | trim + '\n' }}
{%- elif message.role == 'user' %}
{{- '### User: ' + message.content | trim + '\n' }}
{%- else %}
{{- '### Assistant: ' + message.content | trim + end + ('' if loop.last else '\n') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '### Assistant:' }}{% endif %}"""

# The wording of Stanford Alpaca (Taori et al. 2023), with and without an input.
ALPACA = r"""{%- if messages[0].role == 'system' %}
{{- messages[0].content | trim + '\n\n' }}
{%- elif messages[0].input %}
{{- 'Below is an instruction that describes a task, paired with an input that provides further context. ' }}
{{- 'Write a response that appropriately completes the request.\n\n' }}
{%- else %}
{{- 'Below is an instruction that describes a task. ' }}
{{- 'Write a response that appropriately completes the request.\n\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if message.input %}
{{- '### Instruction:\n' + message.instruction | trim + '\n\n### Input:\n' + message.input | trim + '\n\n' }}
{%- else %}
{{- '### Instruction:\n' + message.content | trim + '\n\n' }}
{%- endif %}
{%- elif message.role == 'assistant' %}
{{- '### Response:\n' + message.content | trim + end + ('' if loop.last else '\n\n') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '### Response:\n' }}{% endif %}"""

CHATML = r"""{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content }}
{%- if message.role == 'assistant' %}{{- end }}{% else %}{{- '<|im_end|>' }}{% endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"""

# ChatML with tools in the manner of NousResearch's Hermes, which Qwen 2.5 and others have taken over.
CHATML_TOOLS = r"""{%- set ns = namespace(first=0) %}
{%- if messages and messages[0].role == 'system' %}{% set ns.first = 1 %}{% endif %}
{%- if tools or ns.first %}
{{- '<|im_start|>system\n' + (messages[0].content if ns.first else '') }}
{%- if tools %}
{{- ('\n\n' if ns.first else '') + 'You can call these functions, given as JSON schemas:\n<tools>' }}
{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{% endfor %}
{{- '\n</tools>\nTo call one, write its name and arguments as JSON:\n' }}
{{- '<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call>' }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages[ns.first:] %}
{%- if message.role == 'tool' %}
{%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\n' }}{% endif %}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '' if loop.first and not message.content else '\n' }}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
{{- '}\n</tool_call>' }}
{%- endfor %}
{{- end + '\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"""

PLAIN = r"""{%- for message in messages %}
{{- message.content | trim }}
{%- if message.role == 'assistant' %}{{- end }}{% endif %}
{%- if not loop.last or add_generation_prompt %}{{- '\n' }}{% endif %}
{%- endfor %}"""

NAMED = {
    "instruction-response": INSTRUCTION_RESPONSE,
    "user-assistant": USER_ASSISTANT,
    "alpaca": ALPACA,
    "chatml": CHATML,
    "chatml-tools": CHATML_TOOLS,
    "plain": PLAIN,
}
