"""The first records of every source, looked at before a job is submitted: what would stop it?

A source that was described wrongly (another field, another kind, a converter that fails, a chat
template that does not fit) shows in its first records; found here, it costs no place in the queue.
Seldom more than a tenth of a second, whatever the size of the sources; nothing is prepared, no
tokenizer is loaded. Where the libraries that read data are not installed nothing is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from clusterlm.errors import DataError, Problem
from clusterlm.spec.data import Data, Tokenizer
from clusterlm.spec.rules_data import named_sources
from clusterlm.spec.sources import ConversationSource, Source
from clusterlm.spec.wording import printable

if TYPE_CHECKING:
    from clusterlm.data.chat import ChatTemplate
    from clusterlm.data.convert import BadRecord, Conversation, Dropped
    from clusterlm.data.files import SourceFile
    from clusterlm.data.formats.chunks import Record
    from clusterlm.data.looks.first_records import FirstRecords

NUM_RECORDS = 20

CHOSEN = frozenset({"filtered", "too_short", "too_long", "left_out"})
"""Reasons that the user asked for: what follows may be taken, as in a file sorted by language."""


def first_look(data: Data, *, in_image: bool = False) -> list[Problem]:
    """What is wrong with the sources, as far as their first records show it.

    Args:
        data: of a job that was loaded, so that its files are there.
        in_image: the data is prepared in an image; a converter may import what is there only.
    """
    problems: list[Problem] = []
    template: ChatTemplate | None = None
    sources = list(named_sources(data))
    try:
        if any(isinstance(source, ConversationSource) for _, source in sources):
            template = _template_of(data.tokenizer)
    except DataError as error:
        asked = data.tokenizer.chat_template is not None
        where = "data.tokenizer.chat_template" if asked else "data.tokenizer.name"
        problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))
    except ModuleNotFoundError:
        return []
    # a converter may print, and stdout is for programs
    with redirect_stdout(sys.stderr):
        for place, source in sources:
            stops = data.on_bad_record == "stop"
            problems += _look_at(place, source, template, stops=stops, in_image=in_image)
    return problems


def _template_of(spec: Tokenizer) -> ChatTemplate | None:
    """The chat template; None where it is known only on the hub.

    Raises:
        DataError: it cannot be read, or is no Jinja.
    """
    from clusterlm.data.chat import ChatTemplate
    from clusterlm.data.chats.templates import (
        CHATML,
        SPECIAL_ROLES,
        special_texts_in,
        template_in,
        template_text,
    )

    text = template_text(spec)
    folder = Path(spec.name).expanduser() if spec.name is not None else None
    if folder is None:
        # as train_tokenizer names them
        specials = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
        text = text or CHATML
    elif folder.is_dir():
        specials = {"eos_token": "</s>", **special_texts_in(folder)}
        text = text or template_in(folder) or CHATML
    else:
        # which they are is known on the hub
        specials = dict.fromkeys(SPECIAL_ROLES, "</s>")
    return None if text is None else ChatTemplate(text, specials)


def _look_at(
    place: str, source: Source, template: ChatTemplate | None, *, stops: bool, in_image: bool
) -> Iterator[Problem]:
    try:
        look = _SourceLook(source, template)
    except ModuleNotFoundError:
        return
    except DataError as error:
        if not (in_image and isinstance(error.__cause__, ImportError)):
            yield Problem(f"{place}.converter", str(error))
        return
    try:
        message = look.problem(stops=stops)
    except ModuleNotFoundError:
        # pyarrow, orjson: where the data is prepared they are there
        return
    except DataError as error:
        # so is zstandard
        message = None if isinstance(error.__cause__, ImportError) else str(error)
    if message is not None:
        yield Problem(f"{place}.path", message)


class _SourceLook:
    def __init__(self, source: Source, template: ChatTemplate | None) -> None:
        from clusterlm.data.convert import converter_of
        from clusterlm.data.targets import Targets

        self._source = source
        self._template = template
        self._convert = converter_of(source)
        self._targets = Targets(source) if isinstance(source, ConversationSource) else None

    def problem(self, *, stops: bool) -> str | None:
        """What is wrong with the first records, in words.

        Raises:
            DataError: they cannot be read.
        """
        from clusterlm.data.convert import BadRecord
        from clusterlm.data.files import list_files
        from clusterlm.data.looks.first_records import first_records

        limit = _num_wanted(self._source)
        if self._source.path is None or not limit:
            return None
        files = list_files(self._source)
        seen = first_records(files, limit)
        whys: list[BadRecord | Dropped] = []
        for record in seen.records:
            why = self._why_not(record)
            if why is None:
                return None
            whys.append(why)
            if stops and len(whys) == 1 and isinstance(why, BadRecord):
                return f"{_place_of(files, record)}: {printable(str(why))}"
        if not whys:
            return "there is no record in it" if seen.is_all else None
        if not _tells(whys, seen):
            return None
        first = f"{_place_of(files, seen.records[0])}: {printable(str(whys[0]))}"
        return f"none of the first {len(whys)} records can be used: {first}"

    def _why_not(self, record: Record) -> BadRecord | Dropped | None:
        """Why a record cannot be used, as it is decided when the data is prepared (`items.py`)."""
        from clusterlm.data.convert import BadRecord, Dropped

        try:
            if record.problem is not None:
                raise BadRecord(record.problem)
            content = self._convert(record.value)
            if not isinstance(content, str) and self._template is not None:
                self._check_rendered(content, self._template)
        except (BadRecord, Dropped) as why:
            return why
        return None

    def _check_rendered(self, content: Conversation, template: ChatTemplate) -> None:
        from clusterlm.data.convert import BadRecord, Dropped

        assert self._targets is not None
        try:
            rendered = template.render_with_spans(content.messages, content.tools)
        except ValueError as error:
            raise Dropped("refused_by_template", str(error)) from error
        if not self._targets.of(rendered, content.messages):
            raise BadRecord(
                "nothing to train in it: the chat template shows no words of a trained role"
            )


def _num_wanted(source: Source) -> int:
    """How many records to look at; 0 where the first ones are not asked for."""
    from clusterlm.data.formats.slices import parse_split

    rows = parse_split(source.split)[1]
    if rows is None:
        return NUM_RECORDS
    if rows.needs_total or rows.start:
        return 0
    return NUM_RECORDS if rows.stop is None else min(NUM_RECORDS, rows.stop)


def _tells(whys: Sequence[BadRecord | Dropped], seen: FirstRecords) -> bool:
    """Whether records that cannot be used say that none can."""
    from clusterlm.data.convert import Dropped

    if seen.is_all or seen.is_broken_off:
        return seen.is_all
    # a field that none of them has was misspelt
    return not all(
        isinstance(why, Dropped)
        and why.reason in CHOSEN
        and not (why.reason == "filtered" and why.detail.endswith(" is missing"))
        for why in whys
    )


def _place_of(files: Sequence[SourceFile], record: Record) -> str:
    # imported here: it brings numpy, and most jobs have no problem
    from clusterlm.data.sources import place_of

    return printable(place_of(files, record.file, record.offset))
