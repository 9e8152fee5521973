"""The log of the probe job -> what nodes said. Pure.

A log holds also what srun, modules and prologs print: only lines with a mark count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clusterlm.cluster.doctor.meaning_nodes import gradients_told
from clusterlm.node.look_around import MARK, PART_MARK
from clusterlm.spec.probe import NodesTest, ProbedFolder, ProbedNode

TEST_MARK = "CLUSTERLM-TEST "
END = "CLUSTERLM-END"


@dataclass(frozen=True)
class NodeAnswers:
    """What has come so far."""

    nodes: Sequence[Mapping[str, Any]]
    test: Mapping[str, Any] | None
    is_whole: bool
    """The job has said everything that it will say."""
    noise: Sequence[str] = ()
    """Other lines: where something went wrong, they tell what."""


@dataclass(frozen=True)
class Clocks:
    """Times of this machine around the job, and its own clock against that of the files."""

    submitted: float
    seen: float
    ahead_s: float | None


def parse_answers(text: str) -> NodeAnswers:
    """Everything in a log, whatever else stands in it."""
    nodes, tests, noise, is_whole = [], [], [], False
    parts: dict[str, dict[int, str]] = {}
    for line in text.splitlines():
        if (part := _part(line)) is not None:
            host, number, count, piece = part
            known = parts.setdefault(host, {})
            known[number] = piece
            if len(known) == count:
                whole = "".join(known[at] for at in sorted(known))
                if (found := _object(MARK + whole, MARK)) is not None:
                    nodes.append(found)
        elif (found := _object(line, MARK)) is not None:
            nodes.append(found)
        elif (found := _object(line, TEST_MARK)) is not None:
            tests.append(found)
        elif END in line:
            is_whole = True
        elif line.strip():
            noise.append(line)
    # a step that was started again has the last word
    by_host = {node["host"]: node for node in nodes if isinstance(node.get("host"), str)}
    # a failed test prints an exit code behind what it may have measured
    return NodeAnswers(list(by_host.values()), tests[-1] if tests else None, is_whole, noise)


def _part(line: str) -> tuple[str, int, int, str] | None:
    """Host, number, of how many, and text of a piece, as `look_around.lines_of` writes it."""
    _, mark, rest = line.partition(PART_MARK)
    words = rest.split(" ", 3)
    if not mark or len(words) != 4 or not (words[1].isdecimal() and words[2].isdecimal()):
        return None
    return words[0], int(words[1]), int(words[2]), words[3]


def _object(line: str, mark: str) -> dict[str, Any] | None:
    _, found, rest = line.partition(mark)
    try:
        value = json.loads(rest) if found else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def nodes_of(answers: NodeAnswers, clocks: Clocks) -> tuple[ProbedNode, ...]:
    """Each node."""
    return tuple(
        ProbedNode(
            host=node["host"],
            python=node.get("python"),
            clock_skew_s=skew_of(node, clocks),
            interface=node.get("interface"),
            enroot=node.get("enroot"),
            apptainer=node.get("apptainer"),
            gpus=tuple(node.get("gpus") or ()),
            cpus=node.get("cpus"),
            mem_mb=node.get("mem_mb"),
        )
        for node in sorted(answers.nodes, key=lambda node: str(node["host"]))
    )


def skew_of(node: Mapping[str, Any], clocks: Clocks) -> float | None:
    """How far a node's clock is ahead of this machine's.

    Both are compared with the clock that stamps files on the shared folder. Some file systems take
    the writer's own clock for that, and show no difference; but the node has spoken between the
    submit and now, and what is outside of that is certain.
    """
    if not isinstance(spoke := node.get("time"), int | float):
        return None
    ahead = next((f["ahead_s"] for f in node.get("folders", ()) if "ahead_s" in f), None)
    skew = 0.0 if ahead is None or clocks.ahead_s is None else ahead - clocks.ahead_s
    return max(spoke - clocks.seen, min(skew, spoke - clocks.submitted))


def folders_of(
    known: Sequence[ProbedFolder], answers: NodeAnswers
) -> tuple[tuple[ProbedFolder, ...], list[str]]:
    """Folders as the worst of the nodes sees them, and words on what went wrong."""
    by_path: dict[str, list[Mapping[str, Any]]] = {}
    notes = []
    for node in answers.nodes:
        for seen in node.get("folders", ()):
            by_path.setdefault(seen["path"], []).append(seen)
            if error := seen.get("error"):
                notes.append(f"{seen['path']} on {node['host']}: {error}")
    return tuple(_folder(one, by_path.get(one.path, [])) for one in known), notes


def _folder(known: ProbedFolder, seen: Sequence[Mapping[str, Any]]) -> ProbedFolder:
    if not seen:
        return known
    wrote = [s["writes"] for s in seen if "writes" in s]
    took = [s["save_s"] for s in seen if "save_s" in s]
    return known.model_copy(
        update={
            "visible": all(s.get("visible") for s in seen),
            "fsync_rename": all(wrote) if wrote else None,
            "fsync_rename_s": max(took) if took else None,
        }
    )


def all_reduce_of(answers: NodeAnswers) -> NodesTest | None:
    """The all-reduce; its failure is told by the last line that it has printed."""
    nodes = tuple(sorted(node["host"] for node in answers.nodes))
    test = answers.test
    if test is None:
        return None
    speed = test.get("gb_per_s")
    if not isinstance(speed, int | float) or speed <= 0 or not test.get("ok"):
        errors = [line for line in answers.noise if "Error" in line] or list(answers.noise)
        text = errors[-1].strip() if errors else f"exit {test.get('code')}"
        return NodesTest(ok=False, text=text, nodes=nodes)
    words = f"{test.get('backend')}, {test.get('ranks')} ranks, {test.get('device')}"
    return NodesTest(
        ok=True,
        text=f"{words}; {gradients_told(speed)}",
        nodes=nodes,
        seconds=test.get("seconds"),
        gb_per_s=speed,
    )
