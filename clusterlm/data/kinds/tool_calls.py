"""Tools and calls as OpenAI's API writes them, whatever they were written as.

    {"name": "f", "parameters": {}}   -> {"type": "function", "function": {the same}}
    {"name": "f", "arguments": "{}"}  -> {"type": "function", "function": {name, "arguments": {}}}

Both may come as JSON in a text, a single one without its list. Arguments become an object: most
templates print them as JSON, and a text would come out quoted.
"""

from __future__ import annotations

from typing import Any

import orjson

from clusterlm.data.kinds.conversation import BadRecord, kind_of

_BRACKETS = ("{", "[")


def tools_of(value: Any, field: str) -> list[dict[str, Any]] | None:
    """The tools of a conversation; None when there are none.

    Raises:
        BadRecord: it is something else.
    """
    if value is None or value == "" or value == []:
        return None
    found = parsed(value, field)
    tools = [found] if isinstance(found, dict) else found
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadRecord(f"{field} is {kind_of(value)}; accepted: a list of tools, also as JSON")
    return [_in_function(tool) for tool in tools] or None


def calls_of(value: Any, where: str) -> list[dict[str, Any]] | None:
    """The calls of a turn; None when there are none.

    Raises:
        BadRecord: it is something else.
    """
    if value is None or value == "" or value == []:
        return None
    found = parsed(value, where)
    calls = [found] if isinstance(found, dict) else found
    if not isinstance(calls, list):
        raise BadRecord(f"{where} is {kind_of(value)}; accepted: a list of calls, also as JSON")
    return [_call(call, f"{where}[{number}]") for number, call in enumerate(calls)] or None


def parsed(value: Any, where: str) -> Any:
    """A value, or what the JSON in a text holds.

    Raises:
        BadRecord: the text is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except ValueError as error:
        raise BadRecord(f"{where} is {kind_of(value)}, which is no JSON ({error})") from error


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(name, str):
        found = kind_of(call)
        raise BadRecord(f"{where} is {found}; accepted: {{function: {{name, arguments}}}}")
    inner = dict(function)
    if "arguments" in inner:
        inner["arguments"] = _arguments(inner["arguments"])
    if function is call:
        own = {key: inner.pop(key) for key in ("id", "type") if key in inner}
        return {"type": "function", **own, "function": inner}
    return {"type": "function", **call, "function": inner}


def _arguments(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(_BRACKETS):
        return value
    try:
        return orjson.loads(value)
    except ValueError:
        # a model's broken JSON, kept as it was said
        return value


def _in_function(tool: dict[str, Any]) -> dict[str, Any]:
    if "function" in tool or "name" not in tool:
        return tool
    return {"type": "function", "function": tool}
