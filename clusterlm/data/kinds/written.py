"""What is said, as bytes: JSON or UTF-8; what neither can hold is a bad record."""

from __future__ import annotations

import orjson

from clusterlm.data.kinds.conversation import BadRecord


def as_json(value: object) -> bytes:
    """What is said, as JSON.

    Raises:
        BadRecord: it holds what JSON cannot: half a surrogate pair, a number of more than 64 bits,
            objects hundreds of levels deep, values of other types.
    """
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise BadRecord(f"its turns or tools cannot be written as JSON ({error})") from error


def encoded(text: str) -> bytes:
    """A text in UTF-8.

    Raises:
        BadRecord: it holds half a surrogate pair, which Python lets pass and no tokenizer does.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadRecord(f"it holds what is no Unicode text ({error.reason})") from None
