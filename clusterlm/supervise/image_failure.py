"""Which line of a step's output says why an image did not start, and on which nodes. Pure.

srun itself only says "Exited with exit code 1". The reason stands some lines above it, in the words
of pyxis, enroot, docker, apptainer or our own check, each behind the label of its task:

    1: slurmstepd: error: pyxis: container start failed with error code: 1
    1: slurmstepd: error: pyxis: printing enroot log file:
    1: slurmstepd: error: pyxis:     [ERROR] No such file or directory: /images/x.sqsh
    srun: error: node2: task 1: Exited with exit code 1
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clusterlm.supervise.causes import Cause
from clusterlm.supervise.views import AttemptView, Finding

LONGEST_LINE = 400

# The first that matches a line tells how well it tells. The last ones a node also says when it is
# ended by srun while its image starts, because of another.
_REASONS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<reason>clusterlm image: .+)",
        r"(?P<reason>unrecognized option '?--(?:no-)?container-.+)",
        # what enroot wrote, shown by pyxis; [INFO] and [WARN] are no reasons
        r"error: pyxis: {4,}(?P<reason>(?:\[ERROR\]|FATAL ERROR)(?!.*hooks\.d/\S+ exited).+)",
        r"error: pyxis: {4,}(?!\[(?:INFO|WARN)\]|(?:Terminated|Killed)$)(?P<reason>\S.*)",
        r"^(?P<reason>\[ERROR\] .+|enroot(?:-\w+)?: .+)",
        r"^(?P<reason>docker: (?!Run 'docker|See 'docker).+|FATAL: +.+)",
        r"^(?P<reason>\S*container\.sh: line \d+: (?! *\d+ (?:Killed|Terminated)).+)",
        r"error: pyxis: (?P<reason>(?:couldn't chdir|couldn't mkdir|mount|invalid|unable) .+)",
        r"error: pyxis: (?P<reason>(?:failed to|container|couldn't) .+)",
        r"error: (?P<reason>spank: .*pyxis.+)",
    )
)
_VAGUE = 8
# a shell that SIGTERM or SIGKILL ended exits with 143 or 137
_ENDED = re.compile(r"error: pyxis: child \d+ (?:terminated with signal|failed .*: (?:143|137)\b)")
_LABEL = re.compile(r"^ *(\d+): ")
_HOST = re.compile(r"slurmstepd-(\S+): error: ")

# of one node, whatever the others say; every other word of our check is about the image itself
_OF_A_NODE = re.compile(r"clusterlm image: (?:\d+ of \d+ GPUs|not inside|/\S+ on \S+ belongs)")

_HINTS = (
    (r"could not select device driver", "docker has no NVIDIA toolkit here; dry-run: --gpus none"),
    (r"permission denied.*docker", "your user may not use docker: ask to be in its group"),
    (r"docker: (?:command )?not found|docker: not found", "this machine has no docker"),
    (r"No such image|Unable to find image", "it is built by: clusterlm build-image JOB"),
    (r"unrecognized option", "this Slurm has no pyxis: image.runtime: enroot or apptainer"),
)


@dataclass(frozen=True)
class ImageFailure:
    """An image that did not start."""

    reason: str
    hosts: tuple[str, ...]
    """Nodes that failed while others may be well; empty: it is the same everywhere."""


def judge_image(view: AttemptView) -> Finding | None:
    """Why the image did not start, when that is why the attempt is over.

    A node has no rank before its image has started; others may have some, which srun has ended.
    """
    if not view.step_code or view.ranks_seen >= view.expected_ranks:
        return None
    if view.stop_reason not in (None, "preempted"):
        return None
    failure = find_image_failure(view.step_tail, view.nodes)
    if failure is None:
        return None
    cause = Cause.IMAGE_ON_NODE if failure.hosts else Cause.IMAGE
    where = f"{', '.join(failure.hosts[:8])}: " if failure.hosts else ""
    return Finding(
        cause,
        where + failure.reason,
        host=failure.hosts[0] if failure.hosts else None,
        code=view.step_code,
        error=failure.reason,
        bad_hosts=failure.hosts,
    )


def find_image_failure(output: str, nodes: Sequence[str]) -> ImageFailure | None:
    """The reason in the output of a step that has ended; None when the image started everywhere.

    Args:
        output: of the step, with srun's labels where srun started it.
        nodes: of the step, in the order of its tasks; empty when it had no labels.
    """
    told, ended = _read(output, nodes)
    told = [row for row in told if row[0] < _VAGUE or row[1] not in ended]
    if not told:
        return None
    reason = min(told, key=lambda row: row[0])[2]
    failed = {host for _, host, _ in told if host is not None}
    of_the_image = reason.startswith("clusterlm image: ") and not _OF_A_NODE.match(reason)
    is_everywhere = of_the_image or failed >= set(nodes)
    hosts = () if is_everywhere else tuple(node for node in nodes if node in failed)
    return ImageFailure(_with_hint(reason[:LONGEST_LINE]), hosts)


_Told = tuple[int, str | None, str]
"""How well it tells (0 is best), node, words."""


def _read(output: str, nodes: Sequence[str]) -> tuple[list[_Told], set[str | None]]:
    """The reasons, and the nodes that were ended while their image started."""
    told: list[_Told] = []
    ended: set[str | None] = set()
    for line in output.splitlines():
        label = _LABEL.match(line)
        text = line[label.end() :] if label else line
        host = _host_of(text, int(label[1]) if label else None, nodes)
        if _ENDED.search(text):
            ended.add(host)
        for weight, pattern in enumerate(_REASONS):
            if found := pattern.search(text):
                told.append((weight, host, found["reason"].strip()))
                break
    return told, ended


def _host_of(text: str, label: int | None, nodes: Sequence[str]) -> str | None:
    # newer Slurm names the node itself
    if (named := _HOST.search(text)) and named[1] in nodes:
        return named[1]
    return nodes[label] if label is not None and label < len(nodes) else None


def _with_hint(reason: str) -> str:
    for pattern, hint in _HINTS:
        if re.search(pattern, reason):
            return f"{reason} ({hint})"
    return reason
