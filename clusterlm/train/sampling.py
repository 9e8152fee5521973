"""How the next token is chosen, in the words of a person and in those of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clusterlm.errors import TrainError


@dataclass(frozen=True)
class Sampling:
    """Settings of an answer.

    Attributes:
        max_new_tokens: length of an answer at most.
        temperature: below 1 bolder in its choice, above 1 more at random; 0 is greedy.
        top_p: choose among the likeliest tokens that make up this share.
        top_k: choose among so many; 0 among all.
        repetition_penalty: above 1 what was said becomes less likely.
        greedy: always the likeliest token.
    """

    max_new_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 40
    repetition_penalty: float = 1.1
    greedy: bool = False

    def __post_init__(self) -> None:
        """Say every mistake at once.

        Raises:
            TrainError: a value that has no meaning.
        """
        problems = [
            f"{option} {value}: {accepted}"
            for option, value, is_good, accepted in (
                ("--max-new-tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more"),
                ("--temperature", self.temperature, self.temperature >= 0, "0 (greedy) or more"),
                ("--top-p", self.top_p, 0 < self.top_p <= 1, "above 0, up to 1"),
                ("--top-k", self.top_k, self.top_k >= 0, "0 (all) or more"),
                (
                    "--repetition-penalty",
                    self.repetition_penalty,
                    self.repetition_penalty > 0,
                    "above 0; 1 is none",
                ),
            )
            if not is_good
        ]
        if problems:
            raise TrainError("\n  ".join(problems))

    def arguments(self) -> dict[str, Any]:
        """For `model.generate`."""
        common = {
            "max_new_tokens": self.max_new_tokens,
            "repetition_penalty": self.repetition_penalty,
        }
        if self.greedy or self.temperature == 0:
            # what the model's own generation_config says of sampling is said to be off
            return common | {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return common | {
            "do_sample": True,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
        }
