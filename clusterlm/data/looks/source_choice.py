"""Which sources of a job somebody means: by number, by place, or by a part of the path."""

from __future__ import annotations

from pathlib import Path

from clusterlm.data.fingerprint import sources_of
from clusterlm.errors import DataError
from clusterlm.spec.data import Data
from clusterlm.spec.sources import Source
from clusterlm.spec.wording import did_you_mean, shown


def choose_sources(data: Data, asked: str | None) -> list[tuple[str, Source]]:
    """The sources with their place in the YAML; all of them unless some are asked for.

    Args:
        data: the spec.
        asked: `1`, `data.sources[1]`, `validation.sources[0]`, or a part of a path.

    Raises:
        DataError: there is none like that.
    """
    every = sources_of(data)
    if asked is None:
        return every
    is_number = asked.isascii() and asked.isdigit()
    place = f"sources[{asked}]" if is_number else asked
    found = [(name, source) for name, source in every if name in (place, f"data.{place}")]
    if not found and asked and not is_number:
        found = [(name, source) for name, source in every if asked in _path_of(source)]
    if not found:
        names = [name for name, _ in every] + [Path(_path_of(source)).name for _, source in every]
        raise DataError(f"no source {shown(asked)}; {did_you_mean(asked, names)}")
    return found


def _path_of(source: Source) -> str:
    return source.path or str(source.hub)
