"""The parent of everything that runs on one node: reports, obeys, and leaves nothing behind.

    python -m clusterlm.node.agent --ranks-per-node 8 -- python -m torch.distributed.run ...

It decides nothing about the training. It starts COMMAND in a session of its own with output to
`logs/node<r>.log`, writes `heartbeats/node<r>.json`, and looks twice a second for two files:

    abort.json   SIGKILL to the whole family at once
    stop.json    the ranks save by themselves; after CLUSTERLM_STOP_GRACE seconds (120) the agent
                 sends SIGTERM, 10 s later SIGKILL

SIGTERM or SIGINT to the agent means preemption: it writes `stop.json`, unless a rank has failed
already; then Slurm is only clearing up after another node, and nothing is left to save.

Exit code: that of COMMAND, 128 + n after signal n. One exception: when it was asked to stop and
every rank of this node is on record as done or saved, it is 0; torchrun fails after any SIGTERM.

The files are looked up from the main loop. When the file system hangs, so does the loop: nothing it
could do without the file system is worth a thread, and Slurm's SIGKILL needs no cooperation.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from clusterlm.node.codes import ENDED_WELL, EXIT_NOT_STARTED, EXIT_USAGE, shell_code
from clusterlm.node.extensions import EXTENSIONS, prepare_extensions
from clusterlm.node.files import create_json, has_appeared, read_json
from clusterlm.node.heartbeat import BeatWriter
from clusterlm.node.interface import interface_towards
from clusterlm.node.net_beat import start_net_beat
from clusterlm.node.processes import (
    Wakeup,
    Watched,
    adopt_orphans,
    kill_below,
    living_below,
    reap,
    send_signal,
    signal_below,
    start,
)
from clusterlm.node.records import first_failure, read_exits, read_starts
from clusterlm.node.scrub import Scrubber
from clusterlm.node.secret_env import (
    SECRET_NAMES,
    SecretsRefused,
    read_secrets,
    redactor_in,
)

LOOK_EVERY_S = 0.5
STOP_GRACE_S = 120.0
TERM_TO_KILL_S = 10.0
RECORD_WAIT_S = 3.0
"""How long rank parents get to write their records after their ranks are gone."""
KILL_WAIT_S = 5.0


class Agent:
    """One node of one attempt."""

    def __init__(self, attempt_dir: Path, *, node_rank: int, ranks_per_node: int) -> None:
        self._dir, self._node_rank, self._num_ranks = attempt_dir, node_rank, ranks_per_node
        self._host = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
        self._grace_s = float(os.environ.get("CLUSTERLM_STOP_GRACE") or STOP_GRACE_S)
        supervisor = int(os.environ.get("CLUSTERLM_SUPERVISOR_PID") or 0)
        self._supervisor = Watched(supervisor) if supervisor else None
        self._wakeup = Wakeup()
        self._signal: int | None = None
        self._stop_seen_at: float | None = None
        self._term_sent_at: float | None = None
        for folder in ("logs", "exits", "heartbeats"):
            (attempt_dir / folder).mkdir(parents=True, exist_ok=True)
        self._beats = BeatWriter(
            attempt_dir / "heartbeats" / f"node{node_rank}.json",
            node_rank=node_rank,
            host=self._host,
        )
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._note_signal)

    def run(self, command: Sequence[str]) -> int:
        """Start `command` and see it through; the code to exit with."""
        code = self._run(command)
        self._beats.finish(code)
        self._say(f"exits with {code}")
        return code

    def _run(self, command: Sequence[str]) -> int:
        log = self._dir / "logs" / f"node{self._node_rank}.log"
        try:
            env = child_environment(os.environ, self._node_rank, self._num_ranks)
            self._scrubber = Scrubber(log, redactor_in(env))
            self._child = start(command, env=env, log=log, own_session=True)
        except SecretsRefused as error:
            self._say(f"secrets refused: {error}")
            return EXIT_USAGE
        except OSError as error:
            self._say(f"cannot start {command[0]}: {error}")
            return EXIT_NOT_STARTED
        self._beats.start()
        start_net_beat(os.environ, self._node_rank)
        self._say(f"{self._num_ranks} ranks on {self._host}, started {self._child.pid}")
        returncode = self._wait()
        self._sweep()
        self._scrubber.look(to_the_end=True)
        return self._exit_code(returncode)

    def _wait(self) -> int:
        while (returncode := reap(self._child)) is None:
            self._wakeup.sleep(LOOK_EVERY_S)
            self._scrubber.look()
            if has_appeared(self._dir / "abort.json"):
                self._say("abort.json: killing everything")
                self._kill_all()
            elif self._signal is not None and self._stop_seen_at is None:
                self._obey_signal(self._signal)
            elif self._supervisor and not self._supervisor.lives():
                # no scheduler ends a local training, or a container, whose supervisor is gone
                self._say("the supervisor is gone: killing everything")
                self._kill_all()
            self._enforce_stop()
        return returncode

    def _obey_signal(self, signum: int) -> None:
        name = signal.Signals(signum).name
        failure = first_failure(read_exits(self._dir))
        if failure is not None:
            self._say(f"{name} after rank {failure.rank} failed: ending")
            self._kill_ranks_first()
            return
        stop = {"reason": "preempted", "by": f"node {self._node_rank}", "time": time.time()}
        try:
            is_first = create_json(self._dir / "stop.json", stop)
        except OSError as error:
            self._say(f"{name}: cannot write stop.json: {error}")
            return
        self._say(f"{name}: {'wrote stop.json' if is_first else 'stop.json is there'}")

    def _enforce_stop(self) -> None:
        """Time runs from the moment we saw the file, by our own clock."""
        now = time.monotonic()
        if self._stop_seen_at is None:
            if has_appeared(self._dir / "stop.json"):
                self._stop_seen_at = now
                self._beats.mark("stopping")
                self._say(f"stop.json: the ranks have {self._grace_s:g} s to save")
        elif self._term_sent_at is None:
            if now - self._stop_seen_at > self._grace_s:
                self._say("grace is over: SIGTERM")
                signal_below(signal.SIGTERM)
                self._term_sent_at = now
        elif now - self._term_sent_at > TERM_TO_KILL_S:
            self._say("still running: SIGKILL")
            self._kill_ranks_first()

    def _kill_ranks_first(self) -> None:
        """Kill the ranks' own processes, so that their parents live to write the records."""
        ours = {process.pid for process in living_below(os.getpid())}
        for rank in read_starts(self._dir):
            if rank.node_rank == self._node_rank and {rank.pid, rank.child_pid} <= ours:
                # the parent first: then it knows that the child did not end by itself
                send_signal(rank.pid, signal.SIGTERM)
                send_signal(rank.child_pid, signal.SIGKILL)
        self._wait_until_empty(RECORD_WAIT_S)
        self._kill_all()

    def _sweep(self) -> None:
        """The child has ended: let rank parents write their records, then clear up the rest."""
        self._wait_until_empty(RECORD_WAIT_S)
        if living_below(os.getpid()):
            self._say("killing what is left")
            self._kill_all()

    def _wait_until_empty(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while living_below(os.getpid()) and time.monotonic() < deadline:
            self._wakeup.sleep(0.1)
            reap(self._child)

    def _kill_all(self) -> None:
        for process in kill_below(self._child, within_s=KILL_WAIT_S):
            self._say(f"{process.pid} does not die (state {process.state}): look at this node")

    def _exit_code(self, returncode: int) -> int:
        if returncode != 0 and self._stop_seen_at is not None and self._all_ranks_ended_well():
            return 0
        return shell_code(returncode)

    def _all_ranks_ended_well(self) -> bool:
        # static torchrun: node r holds the ranks r*G ... r*G + G-1
        first = self._node_rank * self._num_ranks
        codes = []
        for rank in range(first, first + self._num_ranks):
            record = read_json(self._dir / "exits" / f"rank{rank}.json")
            codes.append(record.get("code") if record else None)
        return all(code in ENDED_WELL for code in codes)

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signal = signum

    def _say(self, text: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"{now} agent {self._node_rank} ({self._host}): {text}", flush=True)


def child_environment(environ: Mapping[str, str], node_rank: int, num_ranks: int) -> dict[str, str]:
    """The agent's own environment, the secrets, and what the ranks need to know of this node.

    Raises:
        SecretsRefused: see `read_secrets`.
    """
    secrets = read_secrets(environ)
    return {
        **_node_defaults(environ, num_ranks),
        **environ,
        **secrets,
        SECRET_NAMES: ",".join(secrets),
        "CLUSTERLM_NODE_RANK": str(node_rank),
        "CLUSTERLM_AGENT_PID": str(os.getpid()),
        # torchrun's option --signals-to-handle: without SIGTERM in it torchrun leaves SIGTERM
        # ignored, as we start it, and does not kill a save 30 s after Slurm's SIGTERM to everybody
        "PET_SIGNALS_TO_HANDLE": "SIGHUP,SIGQUIT",
    }


def _node_defaults(environ: Mapping[str, str], num_ranks: int) -> dict[str, str]:
    """What only the node itself knows; the job's own `env` goes before it."""
    # torchrun's default is one thread a rank, which leaves most of a CPU node idle
    threads = max(1, len(os.sched_getaffinity(0)) // num_ranks)
    # what torch and DeepSpeed compile: on this node, because a lock that a killed rank leaves in a
    # home folder would keep every later one waiting
    defaults = {"OMP_NUM_THREADS": str(threads), EXTENSIONS: str(prepare_extensions())}
    head = environ.get("CLUSTERLM_MASTER_ADDR", "")
    if environ.get("CLUSTERLM_NODES", "1") != "1" and (name := interface_towards(head)):
        defaults["GLOO_SOCKET_IFNAME"] = name
    return defaults


def choose_node_rank(given: int | None, environ: Mapping[str, str]) -> int:
    """The option, else Slurm's number of the node in this step, else what was inherited, else 0.

    `SLURM_NODEID` counts within the step, so it is right also when an attempt leaves a node out.
    `CLUSTERLM_NODE_RANK` may come from further up and then is the same on every node.
    """
    if given is not None:
        return given
    return int(environ.get("SLURM_NODEID") or environ.get("CLUSTERLM_NODE_RANK") or 0)


def main(argv: Sequence[str]) -> int:
    """Run one node of an attempt; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m clusterlm.node.agent")
    parser.add_argument("--ranks-per-node", type=int, required=True)
    parser.add_argument("--node-rank", type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command or not os.environ.get("CLUSTERLM_ATTEMPT_DIR"):
        parser.error("a command after -- and CLUSTERLM_ATTEMPT_DIR are needed")
    adopt_orphans()
    agent = Agent(
        Path(os.environ["CLUSTERLM_ATTEMPT_DIR"]),
        node_rank=choose_node_rank(options.node_rank, os.environ),
        ranks_per_node=options.ranks_per_node,
    )
    return agent.run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
