"""clusters.yaml as text: an entry more or less, and not one character changed beside it.

The file is the user's, with comments and an order of its own, so nothing is loaded and dumped.
What came out is read again before it is used; a file that cannot be changed this way (everything
in one line, aliases across entries) is left alone, and the user is told what to write.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from clusterlm.errors import ClusterLMError, Problem, SpecError
from clusterlm.node.files import write_atomically
from clusterlm.spec.clusters import parse_clusters
from clusterlm.spec.profile import Profile

HEAD = """\
# Clusters that clusterlm knows; `clusterlm submit JOB --cluster NAME` trains on one.
# Every key: docs/clusters.md. To look: clusterlm clusters ls; to change: clusterlm clusters edit
"""


def with_entry(text: str, name: str, fields: Mapping[str, Any], source: str) -> str:
    """The text with one entry more, at its end.

    Args:
        text: of the file, right as it is; empty for a new one.
        name: of the cluster.
        fields: its keys, as they are to be written.
        source: name of the file, for messages.

    Raises:
        SpecError: the fields are no profile.
        ClusterLMError: the cluster is there already, or the file has a form that is not changed.
    """
    before = parse_clusters(text, source)
    if name in before:
        raise ClusterLMError(
            f"{name} is in {source} already; change it with: clusterlm clusters edit {name}, "
            f"or take it out with: clusterlm clusters rm {name}"
        )
    entries = _entries(text)
    own = yaml.safe_dump({name: dict(fields)}, sort_keys=False, allow_unicode=True, width=1000)
    column = entries.value[0][0].start_mark.column if entries is not None else 2
    entry = textwrap.indent(own, " " * column)
    if entries is None:
        new = _with_section(text or HEAD) + entry
    elif entries.flow_style:
        new = ""
    else:
        new = text.rstrip(" \n") + "\n" + entry
    mine = {name: _profile_of(name, own)}
    if not new or not _means(new, {**before, **mine}):
        raise ClusterLMError(f"{source} is not in a form to add to; write into it:\n\n{entry}")
    return new


def without_entry(text: str, name: str, source: str) -> str:
    """The text without an entry and without the comments inside it.

    Raises:
        ClusterLMError: the file has a form that is not changed.
    """
    left = {key: value for key, value in parse_clusters(text, source).items() if key != name}
    entries = _entries(text)
    lines = text.splitlines(keepends=True)
    for key, value in entries.value if entries is not None and not entries.flow_style else ():
        if key.value == name:
            first, last = key.start_mark.line, max(key.start_mark.line, _last_line(value))
            while last + 1 < len(lines) and _is_inner_comment(lines[last + 1], key):
                last += 1
            new = "".join(lines[:first] + lines[last + 1 :])
            if _means(new, left):
                return new
    raise ClusterLMError(f"{source} is not in a form to change; take {name} out of it by hand")


def write_clusters(path: Path, text: str) -> None:
    """Write the file as a whole, for its owner alone; a link to it (dotfiles) stays a link."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(Path(os.path.realpath(path)), text)


def _profile_of(name: str, entry: str) -> Profile:
    try:
        return parse_clusters(f"clusters:\n{textwrap.indent(entry, '  ')}", "")[name]
    except SpecError as error:
        # it comes from a command line: no line of the file is wrong
        head = f"clusters.{name}."
        problems = [Problem(p.where.removeprefix(head), p.message) for p in error.problems]
        raise SpecError(f"clusters add {name}", problems) from None


def _entries(text: str) -> yaml.MappingNode | None:
    """The mapping below `clusters:`; None when nothing is in it."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "clusters" and isinstance(value, yaml.MappingNode) and value.value:
            return value
    return None


def _with_section(text: str) -> str:
    """The text up to an empty `clusters:`, whatever it was written as."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode) and root.value:
        key, value = root.value[0]
        # `clusters:`, `clusters: {}` and `clusters: null`
        rest = text[value.end_mark.index :] if value.start_mark.line == key.start_mark.line else ""
        text = text[: key.end_mark.index] + ":" + (rest or text[key.end_mark.index + 1 :])
    else:
        text = text.rstrip(" \n") + "\n\nclusters:"
    return text.rstrip(" \n") + "\n"


def _last_line(node: yaml.Node) -> int:
    """Line on which a value really ends: the end of a block collection lies behind comments."""
    children = list(_children(node))
    if not children or getattr(node, "flow_style", False):
        end = node.end_mark
        # a text in block style ends where the next line begins
        behind = end.column == 0 and end.line > node.start_mark.line
        return int(end.line) - (1 if behind else 0)
    return max(map(_last_line, children))


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _is_inner_comment(line: str, key: yaml.Node) -> bool:
    text = line.lstrip(" ")
    return text.startswith("#") and len(line) - len(text) > key.start_mark.column


def _means(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return parse_clusters(text, "clusters.yaml") == dict(wanted)
    except ClusterLMError:
        return False
