"""`check` and `submit --dry-run` of a job for a cluster: every mistake in one list.

    here     the YAML, the files that would go, the secrets
    there    the partition, the account, mounts, paths that lie there, the time

The YAML goes there as a question, and nothing else; the files that it names are judged where they
are. Only a dry run of a job without a mistake sends them, so that what it prints is what `submit`
would send.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from clusterlm.cluster.job_question import JobAnswer, JobQuestion
from clusterlm.cluster.log_text import readable_line
from clusterlm.cluster.remote.answer_json import last_json
from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.remote.shipment import (
    Paths,
    Shipment,
    find_paths,
    is_of_a_file,
    listing,
    plan_shipment,
    preview,
    real_path,
    send,
    summary,
)
from clusterlm.cluster.remote.submit_elsewhere import Wish, lists_of_secrets
from clusterlm.cluster.secret_values import missing_secrets
from clusterlm.errors import ClusterLMError, Problem, SpecError, SshError, SshRefused
from clusterlm.spec.joined import joined, key_of
from clusterlm.spec.load import LookedAt, in_order, look_at_text, with_lines

ANSWER_TIMEOUT_S = 600.0
_BESIDE_A_JSON = ("train", "recovery")
"""Sections that a DeepSpeed JSON of the laptop has a say in."""


@dataclass(frozen=True)
class OwnLooks:
    """What this room cannot do itself.

    Attributes:
        at_data: mistakes in the first records of a job's sources.
        at_size: bytes of its checkpoints; None when that is not known here.
    """

    at_data: Callable[[LookedAt], list[Problem]]
    at_size: Callable[[LookedAt], float | None]


def look(
    remote: Remote,
    wish: Wish,
    own: OwnLooks,
    *,
    with_table: bool = False,
    renders: bool = False,
    tell: Callable[[str], None],
) -> JobAnswer:
    """Find every mistake of a job, here and there.

    Args:
        remote: the cluster.
        wish: the job.
        own: further looks.
        with_table: also starts by nodes and time.
        renders: also the files of a submit; for that, code and data go there.
        tell: gets what would go, and lines on the way.

    Raises:
        SpecError: it is no YAML; nobody was asked.
        ClusterLMError: the cluster cannot be asked, and there is no mistake here to tell instead.
    """
    looked = look_at_text(wish.text, wish.yaml, wish.overrides)
    secrets = _placed(wish, missing_secrets(lists_of_secrets(wish.values)))
    if renders:
        # it shows and sends none
        for problem in secrets:
            tell(f"note: a submit would be refused: {problem.where}: {problem.message}")
        secrets = []
    try:
        folder = remote.folder
        paths = find_paths(remote, wish.yaml, wish.text, wish.overrides)
        shipment, here = _look_here(remote, wish, own, looked, paths)
    except ClusterLMError as error:
        alone = joined(looked.problems, secrets, _placed(wish, own.at_data(looked)))
        if not alone:
            raise
        return _answer(alone, JobAnswer(notes=list(looked.notes), trouble=str(error)))
    here = joined(here, secrets)
    asked = JobQuestion(
        text=wish.text,
        overrides=wish.overrides,
        judged=_judged(paths),
        needed=None if looked.problems else own.at_size(looked),
        with_secrets=False,
        with_table=with_table,
    )
    yaml = f"{folder}/snapshots/job/{wish.yaml.name}"
    if shipment is not None:
        for line in (preview if renders else summary)(shipment, remote.name):
            tell(line)
        for line in listing(shipment) if renders else []:
            tell(line)
        if renders and not here and _may_go(shipment, wish, remote, tell):
            arrived = send(shipment, remote, tell=tell)
            yaml, whole = arrived.yaml, [*wish.overrides, *arrived.overrides]
            asked = asked.model_copy(update={"overrides": whole, "judged": [], "renders": True})
    try:
        answer = _ask(remote, asked, yaml, tell)
    except SshError as error:
        if not here:
            raise
        answer = JobAnswer(trouble=str(error))
    there = [_as_here(problem, yaml, wish.yaml) for problem in answer.mistakes]
    found = joined(here, _placed(wish, there))
    # a mount is a folder of the cluster's: whether it is there was looked up there
    notes = [note for note in looked.notes if not note.startswith("image.mounts: not here")]
    return _answer(found, answer.model_copy(update={"notes": notes or answer.notes}))


def _look_here(
    remote: Remote, wish: Wish, own: OwnLooks, looked: LookedAt, paths: Paths
) -> tuple[Shipment | None, list[Problem]]:
    """What would go, if it can, and the mistakes that are seen from here."""
    shipment, of_files = None, []
    try:
        shipment = plan_shipment(
            remote, wish.yaml, wish.text, wish.overrides, limit=wish.limit, paths=paths
        )
    except SshError:
        raise
    except SpecError as error:
        of_files = error.problems
    except ClusterLMError as error:
        of_files = [Problem("project", str(error))]
    mine = JobQuestion(text="", judged=paths.of_laptop)
    of_data = _placed(wish, [p for p in own.at_data(looked) if mine.is_judged(p)])
    certain = [p for p in looked.problems if mine.is_judged(p) or not is_of_a_file(p.where)]
    return shipment, joined(_placed(wish, of_files), certain, of_data)


def _judged(paths: Paths) -> list[str]:
    judged = paths.of_laptop
    return [*judged, *_BESIDE_A_JSON] if "train.deepspeed" in judged else judged


def _may_go(shipment: Shipment, wish: Wish, remote: Remote, tell: Callable[[str], None]) -> bool:
    if shipment.bytes_of_data <= wish.limit:
        return True
    tell(f"the data is not on {remote.name} yet, and is too large for a look: no files are shown")
    return False


def _ask(remote: Remote, asked: JobQuestion, yaml: str, tell: Callable[[str], None]) -> JobAnswer:
    words = ["check", yaml, "--question"]
    question = asked.model_dump_json().encode()
    done = remote.ask(words, stdin=question, timeout_s=ANSWER_TIMEOUT_S)
    if done.code:
        return JobAnswer(trouble=remote.refusal(done))
    for line in done.err.splitlines():
        tell(readable_line(line))
    try:
        # as JSON: in Python's own values a list would be no tuple
        return JobAnswer.model_validate_json(json.dumps(last_json(done.out.splitlines())))
    except ValidationError:
        raise SshRefused(f"{remote.name}: what came back of the check is no answer") from None


def _as_here(problem: Problem, yaml_there: str, yaml: Path) -> Problem:
    """The problem in the user's words: without what was set for the sake of the other side."""
    root_there, root = yaml_there.rpartition("/")[0], str(real_path(yaml).parent)
    # one line, whatever the other side puts into it
    message = " ".join(problem.message.replace(root_there, root).splitlines())
    return replace(problem, where=key_of(problem), message=message, line=None)


def _placed(wish: Wish, problems: Sequence[Problem]) -> list[Problem]:
    return with_lines(problems, wish.text, wish.overrides)


def _answer(problems: list[Problem], rest: JobAnswer) -> JobAnswer:
    found = [(p.where, p.message, p.line) for p in in_order(problems)]
    return rest.model_copy(update={"problems": found})
