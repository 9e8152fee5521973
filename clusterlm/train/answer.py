"""One answer of a model, piece by piece, to a conversation or as a continuation of plain text."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from clusterlm.errors import TrainError
from clusterlm.spec.wording import one_line
from clusterlm.train.history import ASSISTANT, USER, History, Message
from clusterlm.train.loaded import Loaded
from clusterlm.train.sampling import Sampling

SMALLEST_ROOM = 16
"""Tokens left for an answer when the conversation fills the context."""


class _WhenAsked(StoppingCriteria):  # type: ignore[misc]
    def __init__(self) -> None:
        self.asked = threading.Event()

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((len(input_ids),), self.asked.is_set(), device=input_ids.device)


@dataclass
class Answerer:
    """A loaded model and how it answers.

    Attributes:
        loaded: model and tokenizer.
        sampling: how tokens are chosen.
    """

    loaded: Loaded
    sampling: Sampling
    _stop: _WhenAsked = field(default_factory=_WhenAsked)

    @property
    def has_template(self) -> bool:
        """Whether the model knows conversations."""
        return bool(getattr(self.loaded.tokenizer, "chat_template", None))

    @property
    def context(self) -> int | None:
        """Tokens that the model can see at once; None when it does not say."""
        config = self.loaded.model.config
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        length = getattr(text, "max_position_embeddings", None)
        return int(length) if length else None

    @property
    def room(self) -> int:
        """Tokens for what is asked: the context less the answer, at least half of the context."""
        if self.context is None:
            return 1 << 30
        longest = max(self.context // 2, self.context - self.sampling.max_new_tokens)
        return min(longest, self.context - min(SMALLEST_ROOM, self.context // 2))

    def encode_history(self, history: History) -> torch.Tensor:
        """Ids of the turns that fit, up to where the model is to speak; shape (1, T).

        Raises:
            TrainError: the template refuses these messages, or the last turn alone is too long.
        """
        messages = history.fitting(lambda some: len(self._render(some)), self.room)
        return self._within_context(self._render(messages))

    def encode_text(self, text: str) -> torch.Tensor:
        """Ids of plain text, its end when it is too long; shape (1, T)."""
        tokenizer = self.loaded.tokenizer
        ids = list(tokenizer(text)["input_ids"])
        end = tokenizer.eos_token_id
        if ids and end is not None and ids[-1] == end:
            # some tokenizers close a text, which is to go on
            ids = ids[:-1]
        if not ids:
            start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
            ids = [start if start is not None else 0]
        return self._as_batch(ids[-self.room :])

    def shows(self, role: str) -> bool:
        """Whether the chat template renders what is said in this role."""
        if not self.has_template:
            return False
        said = "clusterlm-probe"
        talk = [{"role": USER, "content": "?"}, {"role": ASSISTANT, "content": "!"}]
        try:
            return said in self._text([*talk, {"role": role, "content": said}])
        except TrainError:
            return False

    def answer(self, ids: torch.Tensor) -> Iterator[str]:
        """Pieces of the answer as they come; `stop` ends it early.

        Raises:
            TrainError: the model failed.
        """
        streamer = TextIteratorStreamer(
            self.loaded.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        self._stop.asked.clear()
        failed: list[BaseException] = []
        writer = threading.Thread(target=self._write, args=(ids, streamer, failed), daemon=True)
        writer.start()
        try:
            yield from streamer
        finally:
            self.stop()
            writer.join()
        if failed:
            words = " ".join(str(failed[0]).split())
            raise TrainError(f"the model failed while it answered: {words}") from failed[0]

    def stop(self) -> None:
        """End the answer after the next token."""
        self._stop.asked.set()

    def _write(self, ids: torch.Tensor, streamer: Any, failed: list[BaseException]) -> None:
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        arguments = self.sampling.arguments()
        if self.context is not None:
            room = max(1, self.context - ids.shape[1])
            arguments["max_new_tokens"] = min(arguments["max_new_tokens"], room)
        try:
            with torch.no_grad():
                model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    pad_token_id=pad,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([self._stop]),
                    use_cache=True,
                    **self._ends(),
                    **arguments,
                )
        # whatever it is, the reader of the pieces must not wait for ever
        except BaseException as error:
            failed.append(error)
            # not `end`, which decodes what is left: that may be what failed
            streamer.on_finalized_text("", stream_end=True)

    def _ends(self) -> dict[str, Any]:
        """Where an answer ends: as model and tokenizer say, and where the template ends a turn."""
        known = self.loaded.model.generation_config.eos_token_id
        ends = set(known if isinstance(known, list) else [known])
        ends |= {self.loaded.tokenizer.eos_token_id, self._end_of_turn()}
        ends -= {None}
        return {"eos_token_id": sorted(ends)} if ends else {}

    def _end_of_turn(self) -> int | None:
        """The special token that the template puts behind an answer, such as <|im_end|>."""
        if not self.has_template:
            return None
        said = "clusterlm-probe"
        talk = [{"role": USER, "content": "?"}, {"role": ASSISTANT, "content": said}]
        try:
            behind = self._text(talk).rpartition(said)[2]
        except TrainError:
            return None
        tokenizer = self.loaded.tokenizer
        ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
        special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        return ids[0] if ids and ids[0] in special else None

    def _render(self, messages: list[Message]) -> list[int]:
        text = self._text(messages)
        return list(self.loaded.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text(self, messages: list[Message]) -> str:
        tokenizer = self.loaded.tokenizer
        try:
            # as text first: what this gives with tokenize=True has changed between versions
            text: str = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=messages[-1]["role"] != ASSISTANT
            )
        # a template is a program of the model's author and may raise anything
        except Exception as error:
            roles = ", ".join(message["role"] for message in messages)
            words = one_line(error)
            raise TrainError(f"the chat template refuses {roles}: {words}") from error
        return text

    def _within_context(self, ids: list[int]) -> torch.Tensor:
        if self.context is not None and len(ids) >= self.context:
            raise TrainError(
                f"that is {len(ids)} tokens, and the model sees {self.context} at once; say less"
            )
        return self._as_batch(ids)

    def _as_batch(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self.loaded.device)
