"""A converter: one record of your own form -> a conversation. Used by jobs/own-converter.yaml.

It is called once for each record, in several processes, and gets the record as a dict. It may give

    [{"role": "user", "content": "..."}, ...]    messages, from which the answers are trained
    {"messages": [...], "tools": [...]}          the same, with functions that may be called
    "a text"                                     a document, trained as a whole
    None                                         nothing: the record is left out, and counted

What it raises is told with the file and line of the record, and of this file.
"""

from __future__ import annotations

from typing import Any

GREETING = "You answer the customers of a small telephone company. Be brief and friendly."


def ticket_to_messages(record: dict[str, Any], min_rating: int = 1) -> list[dict[str, str]] | None:
    """Tickets that the customer was content with; what one side says in a row is one turn."""
    rating = record["rating"]
    if rating is None or rating < min_rating:
        return None
    messages = [{"role": "system", "content": GREETING}]
    for entry in record["thread"]:
        by = entry["by"]
        # "Ticket opened", "Attachment: ..."
        if by == "system":
            continue
        role = "user" if by == "customer" else "assistant"
        if messages[-1]["role"] == role:
            messages[-1]["content"] += "\n" + entry["text"]
        else:
            messages.append({"role": role, "content": entry["text"]})
    return messages
