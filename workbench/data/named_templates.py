"""Templates by name, written in Jinja as a model's own chat template is.

Each is given ``messages``, ``add_generation_prompt`` and ``end``, the text that ends a reply. A prompt ends where the
model starts to write: what follows is the reply alone, so that a space after ``Assistant:`` is the reply's, as
tokenizers of the GPT-2 family join it to the word.
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
    "plain": PLAIN,
}
