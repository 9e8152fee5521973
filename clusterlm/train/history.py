"""What a chat remembers, and what of it the model is shown. Pure: no model, no terminal.

    system       always, when there is one
    turns        a question of the user and what followed (answer, function responses)

The newest `limit` turns are kept; of these, as many as fit into the model's context together with
the room for an answer. A turn goes as a whole, so no answer stands without its question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Message = dict[str, str]
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


@dataclass
class History:
    """The conversation so far.

    Attributes:
        limit: turns that are kept; 0 keeps all.
        system: the prompt that stands before everything.
        messages: without it.
    """

    limit: int = 10
    system: str | None = None
    messages: list[Message] = field(default_factory=list)

    def add(self, role: str, content: str) -> None:
        """Say something, and forget the oldest turns beyond the limit."""
        self.messages.append({"role": role, "content": content})
        turns = split_turns(self.messages)
        if self.limit and len(turns) > self.limit:
            self.messages = [m for turn in turns[-self.limit :] for m in turn]

    def drop_last(self) -> None:
        """Take back what was said last: no answer came."""
        self.messages.pop()

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages = []

    def shown(self) -> list[Message]:
        """All messages, the system prompt first."""
        system = [{"role": SYSTEM, "content": self.system}] if self.system else []
        return [*system, *self.messages]

    def fitting(self, count: Callable[[list[Message]], int], room: int) -> list[Message]:
        """The messages that fit: the oldest turns are left out, the last one never.

        Args:
            count: tokens of messages.
            room: most tokens.
        """
        turns = split_turns(self.messages)
        system = self.shown()[: 1 if self.system else 0]
        while True:
            messages = [*system, *(message for turn in turns for message in turn)]
            if len(turns) <= 1 or count(messages) <= room:
                return messages
            turns = turns[1:]


def split_turns(messages: list[Message]) -> list[list[Message]]:
    """Messages by turn; each begins with a user's."""
    turns: list[list[Message]] = []
    for message in messages:
        if message["role"] == USER or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns
