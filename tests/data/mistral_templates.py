"""Templates that write tools and calls in the two forms of Mistral's models, and reject ids as theirs do."""

_HEAD = r"""{%- set last = namespace(user=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}
{%- macro checked(id) %}{% if id is not defined or id | length != 9 %}
{{- raise_exception('Ids of calls have nine letters or digits.') }}{% endif %}{{- id }}{% endmacro %}
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if tools and loop.index0 == last.user %}
{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
{%- endif %}
{{- '[INST] ' + message.content + '[/INST]' }}
"""
_TAIL = r"""
{%- else %}{{- ' ' + message.content + eos_token }}{% endif %}
{%- endfor %}"""

# A JSON list of calls, the id last: Mistral 7B v0.3, Nemo, Small 2409.
LISTED = (
    _HEAD
    + r"""{%- elif message.tool_calls %}{{- '[TOOL_CALLS] [' }}
{%- for call in message.tool_calls %}
{{- (call.function | tojson)[:-1] + ', "id": "' + checked(call.id) + '"}' + ('' if loop.last else ', ') }}
{%- endfor %}{{- ']' + eos_token }}
{%- elif message.role == 'tool' %}{{- '[TOOL_RESULTS] {"content": ' + message.content | tojson + ', "call_id": "' }}
{{- checked(message.tool_call_id) + '"}[/TOOL_RESULTS]' }}"""
    + _TAIL
)
# The name, the id and the arguments after marks of their own: Mistral Small 3.2.
MARKED = (
    _HEAD
    + r"""{%- elif message.tool_calls %}
{%- for call in message.tool_calls %}
{{- '[TOOL_CALLS]' + call.function.name + '[CALL_ID]' + checked(call.id) + '[ARGS]' }}
{{- call.function.arguments | tojson }}
{%- endfor %}{{- eos_token }}
{%- elif message.role == 'tool' %}
{{- '[TOOL_RESULTS]' + checked(message.tool_call_id) + '[TOOL_CONTENT]' + message.content + '[/TOOL_RESULTS]' }}"""
    + _TAIL
)
