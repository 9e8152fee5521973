"""Chat templates that do what templates of real models do, each something that breaks a mask."""

from __future__ import annotations

from clusterlm.data.chats.templates import BUILT_IN

SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}

SIMPLE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NO_PROMPT = SIMPLE.partition("{% if add_generation_prompt")[0]

# as Qwen-2.5
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe good<|im_end|>\n' }}{% endif %}" + SIMPLE
)
# as Qwen-3: what was thought before the last question is left out, the last answer always thinks
LAST_THINKS = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content }}
    {%- for tool in tools or [] %}{{- '\\n' ~ (tool | tojson) }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set found = namespace(is_open=true, question=messages | length - 1) %}
{%- for message in messages[::-1] %}
    {%- set place = messages | length - 1 - loop.index0 %}
    {%- if found.is_open and message.role == 'user' and message.content is string
            and not message.content.startswith('<tool_response>') %}
        {%- set found.is_open = false %}
        {%- set found.question = place %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set words = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + words + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thoughts = message.reasoning_content %}
        {%- elif '</think>' in words %}
            {%- set thoughts = words.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
            {%- set words = words.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > found.question and (loop.last or thoughts) %}
            {{- '<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' + words.lstrip('\\n') }}
        {%- else %}
            {{- words }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if words or not loop.first %}{{- '\\n' }}{%- endif %}
            {%- set call = call.function or call %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + words + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
# as DeepSeek-R1: thoughts are always left out, and the generation prompt begins with one
PROMPT_THINKS = """\
{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- for message in messages if message.role == 'system' %}
    {%- set ns.system = ns.system + message.content %}
{%- endfor %}
{{- ns.system }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|User|>' + message.content }}
    {%- elif message.role == 'assistant' %}
        {{- '<|Assistant|>' + message.content.split('</think>')[-1] }}{{- eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|Assistant|><think>\\n' }}{%- endif %}"""
# as Llama-3.1: a date, tools in the first question, results as JSON, calls alone in their turn
DATED = """\
{{- bos_token + '<|start|>system<|end|>\\n\\nToday: ' + strftime_now('%d %b %Y') }}
{%- if messages[0].role == 'system' %}
    {{- '\\n\\n' + messages[0].content | trim }}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- '<|eot|>' }}
{%- for message in messages %}
    {%- if message.role == 'user' and loop.first and tools %}
        {{- '<|start|>user<|end|>\\n\\n' }}
        {%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{%- endfor %}
        {{- message.content | trim + '<|eot|>' }}
    {%- elif message.tool_calls %}
        {%- if message.tool_calls | length != 1 %}{{- raise_exception('one call') }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start|>assistant<|end|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- '}<|eot|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|start|>ipython<|end|>\\n\\n' + message.content | tojson + '<|eot|>' }}
    {%- else %}
        {{- '<|start|>' + message.role + '<|end|>\\n\\n' + message.content | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\\n\\n' }}{%- endif %}"""
# as Mistral's: the system turn goes with the last question, turns must alternate
STRICT = """\
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {%- if system is defined and loop.index0 >= messages | length - 2 %}
            {{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + message.content + '[/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + message.content | trim + eos_token }}
    {%- endif %}
{%- endfor %}"""
SPACED = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'] + '</s>' }}{% endif %}{% endfor %}"
)
GENERATION = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% generation %}"
    "{{ message['content'] + '<|end|>' }}{% endgeneration %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REFUSES_PREFIXES = (
    "{% if messages[-1]['role'] != 'assistant' %}{{ raise_exception('no answer') }}{% endif %}"
    + NO_PROMPT
)
AS_JSON = "{{ messages | tojson }}"
NOTHING_BETWEEN = "{% for message in messages %}{{ message.content }}{% endfor %}"
UPPER = SIMPLE.replace("message['content']", "message['content'] | upper")
TWICE = SIMPLE.replace("message['content']", "message['content'] + message['content']")

SEEN = {
    "simple": SIMPLE,
    "no prompt": NO_PROMPT,
    "default system": DEFAULT_SYSTEM,
    "last thinks": LAST_THINKS,
    "prompt thinks": PROMPT_THINKS,
    "dated": DATED,
    "strict": STRICT,
    "spaced": SPACED,
    "generation": GENERATION,
    "refuses prefixes": REFUSES_PREFIXES,
    "as json": AS_JSON,
    "nothing between": NOTHING_BETWEEN,
    "upper": UPPER,
    "twice": TWICE,
}
ALL = {**BUILT_IN, **SEEN}
