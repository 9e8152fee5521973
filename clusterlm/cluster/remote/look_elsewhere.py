"""The state of runs on clusters: one call to each, all at once; who does not answer is UNKNOWN.

UNKNOWN says what was last known and how old that is. Looking changes nothing over there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from clusterlm.cluster.remote import runs_elsewhere
from clusterlm.cluster.remote.answer_json import last_json
from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.remote.runs_elsewhere import Elsewhere
from clusterlm.cluster.run_status import RunStatus
from clusterlm.errors import ClusterLMError, SshError, SshRefused
from clusterlm.spec.units import spoken
from clusterlm.supervise.causes import State

ALL_WITHIN_S = 8.0
ARRIVES_WITHIN_S = 600.0
"""So long after its beginning a submit may still be under way."""

MOST_RUNS = 5000
"""Of a cluster: a file is written for each."""

Connect = Callable[[str], Remote]


def look_at(
    runs: Iterable[Elsewhere],
    connect: Connect,
    *,
    also_ended: bool = False,
    within_s: float = ALL_WITHIN_S,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[RunStatus], list[str]]:
    """The runs' states, and notes on what could not be learnt.

    Args:
        runs: which.
        connect: gives the cluster of that name.
        also_ended: ask for ended ones too; somebody may have resumed one over there.
        within_s: for all answers; an installation that is under way is waited for.
        clock: for that.
    """
    runs = list(runs)
    asked = {one.cluster for one in runs if also_ended or not one.is_final}
    looks = {name: _Look(name, connect) for name in sorted(asked)}
    _wait_for(looks.values(), within_s, clock)
    found, notes = [], []
    for run in runs:
        status, note = _status_of(run, looks.get(run.cluster))
        found += [status] if status else []
        notes += [note] if note else []
    return found, notes


def look_over(cluster: str, connect: Connect) -> tuple[list[RunStatus], list[str]]:
    """Every run that lies on a cluster, whoever sent it; from now on commands here know them.

    Args:
        cluster: name of the profile.
        connect: gives the cluster of that name.

    Returns:
        The runs' states, and a note on each whose name means another run here.

    Raises:
        SshError: the cluster does not answer.
    """
    look = _Look(cluster, connect)
    _wait_for([look], ALL_WITHIN_S, time.monotonic)
    if look.rows is None:
        raise SshError(look.trouble)
    found, notes = [], []
    if len(look.rows) > MOST_RUNS:
        raise SshRefused(
            f"{cluster} names {len(look.rows):,} runs; more than {MOST_RUNS:,} are not taken"
        )
    for name, row in sorted(look.rows.items()):
        found.append(RunStatus.from_json(row))
        if trouble := runs_elsewhere.adopt(name, cluster, dict(row)):
            notes.append(trouble)
    return found, notes


def _wait_for(looks: Collection[_Look], within_s: float, clock: Callable[[], float]) -> None:
    began = clock()
    for one in looks:
        one.thread.start()
    for one in looks:
        while one.thread.is_alive() and (clock() - began < within_s or one.is_installing):
            one.thread.join(0.05)


class _Look:
    """One cluster's `status --json`, in a thread of its own."""

    def __init__(self, name: str, connect: Connect) -> None:
        self.is_installing = False
        self.trouble = f"{name} gives no answer"
        self.rows: dict[str, dict[str, object]] | None = None
        self.thread = threading.Thread(target=self._ask, args=(name, connect), daemon=True)

    def _ask(self, name: str, connect: Connect) -> None:
        try:
            remote = connect(name)
            plain = remote.tell
            remote.tell = lambda line: self._told(line, plain)
            done = remote.ask(["status", "--json"], timeout_s=30.0, is_repeatable=False)
        except (ClusterLMError, OSError) as error:
            self.trouble = str(error).splitlines()[0]
            return
        rows = last_json(done.out.splitlines())
        if done.code or not isinstance(rows, list):
            words = done.err.strip().splitlines() or [f"exit code {done.code}"]
            self.trouble = f"{name}: {words[-1]}"
            return
        self.rows = {str(row.get("run")): row for row in rows if isinstance(row, dict)}

    def _told(self, line: str, plain: Callable[[str], None]) -> None:
        # the only thing that is told in a look
        self.is_installing = True
        plain(line)


def _status_of(run: Elsewhere, look: _Look | None) -> tuple[RunStatus | None, str]:
    if look is None:
        return _last_known(run), ""
    if look.rows is None:
        return (_last_known(run) if run.is_final else unknown(run, look.trouble)), ""
    row = look.rows.get(run.run)
    if row is not None:
        runs_elsewhere.remember(runs_elsewhere.with_status(run, dict(row)))
        return RunStatus.from_json(row), ""
    if not run.is_sent:
        if time.time() - run.submitted < ARRIVES_WITHIN_S:
            return unknown(
                run,
                f"{run.cluster} has no such run so far: its submit is under way, or was cut off; "
                "the same command again goes on with it, and is one run",
            ), ""
        runs_elsewhere.forget(run.run)
        return None, f"{run.run} never reached {run.cluster}; submit it again"
    return unknown(run, f"{run.cluster} has no run of that name any more"), ""


def _last_known(run: Elsewhere) -> RunStatus:
    last = RunStatus.from_json(run.status or {})
    since = max(0.0, time.time() - (run.seen or run.submitted))
    return replace(last, updated_s_ago=(last.updated_s_ago or 0.0) + since)


def unknown(run: Elsewhere, trouble: str) -> RunStatus:
    """A run that nothing can be said of, with what was last known."""
    last = _last_known(run)
    age = max(0.0, time.time() - (run.seen or run.submitted))
    known = f"last known: {last.state.value}, {spoken(age)} ago; " if run.status else ""
    return replace(
        last,
        run=run.run,
        cluster=run.cluster,
        job_ids=list(run.job_ids.values()) or last.job_ids,
        state=State.UNKNOWN,
        cause=None,
        advice=f"nothing was changed; look again: clusterlm status {run.run}",
        eta_s=None,
        updated_s_ago=age,
        source="last look" if run.status else "",
        evidence=f"{known}{trouble}",
        trouble="",
    )
