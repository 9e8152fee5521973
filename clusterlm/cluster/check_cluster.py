"""Is a cluster of clusters.yaml fit to be used: connect, clusterlm there, Slurm there.

One verdict a step, in words, with what to do; the first that fails ends it, for the next ones need
it. What the cluster has and allows is doctor's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterlm.cluster.host import Completed, Host, LocalHost
from clusterlm.cluster.log_text import readable_line
from clusterlm.cluster.preflight import PROGRAMS
from clusterlm.errors import ClusterLMError, SshError
from clusterlm.node.files import read_json
from clusterlm.paths import runs_dir
from clusterlm.spec.clusters import folders_of
from clusterlm.spec.profile import Profile
from clusterlm.spec.units import spoken

if TYPE_CHECKING:
    from clusterlm.cluster.ssh.transport import Transport

ASK_TIMEOUT_S = 60.0
ELSEWHERE = ".elsewhere"
Say = Callable[["Verdict"], None]


@dataclass(frozen=True)
class Verdict:
    """What came of one step.

    Attributes:
        step: its name.
        is_good: it is as it should be.
        words: what was found.
        advice: what to do, when it is not good.
    """

    step: str
    is_good: bool
    words: str
    advice: str = ""

    def lines(self) -> list[str]:
        """For a terminal."""
        head = f"{'ok' if self.is_good else 'FAILED':<7} {self.step:<10} {self.words}"
        return [head, *(f"{'':<19}{line}" for line in self.advice.splitlines())]


def check_cluster(
    name: str,
    profile: Profile,
    wheelhouse: Path | None,
    extras: Sequence[str] | None,
    *,
    say: Say,
    tell: Callable[[str], None],
) -> bool:
    """Look whether a cluster can be used, and make it so as far as that is clusterlm's part.

    Args:
        name: of the profile.
        profile: of the cluster.
        wheelhouse: folder of wheels here, for a cluster without a package index.
        extras: of clusterlm to install too; None: those of the last time.
        say: gets each verdict as it is known.
        tell: gets a line at each step that takes its time.

    Returns:
        Whether every verdict is good.
    """
    if profile.host is None:
        steps = iter([_slurm_on(LocalHost(), "this machine"), *_folders(profile)])
    else:
        steps = _steps_there(name, profile, wheelhouse, extras, tell)
    for verdict in steps:
        say(verdict)
        if not verdict.is_good:
            return False
    return True


def _steps_there(
    name: str,
    profile: Profile,
    wheelhouse: Path | None,
    extras: Sequence[str] | None,
    tell: Callable[[str], None],
) -> Iterator[Verdict]:
    # imported when there is something to connect to: other commands need none of it
    from clusterlm.cluster.remote.bootstrap import bootstrap
    from clusterlm.cluster.ssh.connect import connect

    transport: Transport | None = None
    try:
        transport = connect(name, profile)
        yield _connection(transport)
        started = time.monotonic()
        installed = bootstrap(
            transport, name, profile, wheelhouse=wheelhouse, extras=extras, tell=tell
        )
        took = spoken(time.monotonic() - started)
        yield Verdict("clusterlm", True, f"{installed.python} (ready in {took})")
        if installed.is_new:
            _tell_of_old_software(name, profile, transport, tell)
        yield _slurm_on(transport, transport.name)
    except SshError as error:
        yield Verdict("connect", False, *_head_and_rest(error, _ssh_advice(profile)))
    except ClusterLMError as error:
        yield Verdict("clusterlm", False, *_head_and_rest(error, ""))
    finally:
        if transport is not None:
            transport.close()


def _connection(transport: Transport) -> Verdict:
    done = transport.run(["uname", "-n"], timeout_s=ASK_TIMEOUT_S, doing="the first look")
    if done.is_ok:
        node = readable_line(done.out.strip())
        return Verdict("connect", True, f"{transport.name}, node {node}")
    advice = "a login shell there must be able to run programs: look at ~/.bashrc, and at `setup`"
    return Verdict("connect", False, _words(done), advice)


def _tell_of_old_software(
    name: str, profile: Profile, transport: Transport, tell: Callable[[str], None]
) -> None:
    """How much of what older versions left there could go."""
    from clusterlm.cluster.remote.answer_json import last_json
    from clusterlm.cluster.remote.cleaning import bytes_of
    from clusterlm.cluster.remote.forward import Remote
    from clusterlm.cluster.remote.snapshot import spoken_size

    remote = Remote(name, profile, transport, tell)
    # a hint alone: where it takes long it is left out
    words = ["clusters", "clean", name, "--json"]
    try:
        done = remote.ask(words, timeout_s=ASK_TIMEOUT_S, is_repeatable=False)
    except SshError:
        return
    answer = last_json(done.out.splitlines())
    if isinstance(answer, dict) and (size := bytes_of(answer, "software")):
        tell(
            f"{name}: older software there takes {spoken_size(size)}; take it away: "
            f"clusterlm clusters clean {name}"
        )


def _slurm_on(host: Host, where: str) -> Verdict:
    done = host.run(["squeue", "--version"], timeout_s=ASK_TIMEOUT_S)
    if not done.is_ok:
        advice = (
            "is it a login node of the cluster? Some sites need a line of `setup` in the profile:\n"
            "setup: [module load slurm]"
        )
        # 127: no such program, as in a shell
        what = f"no squeue on {where}" if done.code == 127 else f"squeue fails on {where}"
        return Verdict("slurm", False, f"{what}: {_words(done)}", advice)
    version = readable_line(done.out.strip())
    missing = [program for program in PROGRAMS if not host.has(program)]
    if missing:
        advice = "clusterlm needs all of them; ask the site"
        return Verdict("slurm", False, f"{version}, but no {', '.join(missing)}", advice)
    return Verdict("slurm", True, version)


def _folders(profile: Profile) -> Iterator[Verdict]:
    for folder in folders_of(profile).values():
        try:
            Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            advice = "name a folder of yours on a file system that every node sees"
            yield Verdict("folders", False, f"{folder}: {error.strerror}", advice)
            return
    if found := list(folders_of(profile).values()):
        yield Verdict("folders", True, ", ".join(found))


def _words(done: Completed) -> str:
    said = (done.err or done.out).strip().splitlines()
    return readable_line(said[-1]) if said else f"no answer (exit {done.code})"


def _head_and_rest(error: Exception, advice: str) -> tuple[str, str]:
    head, _, rest = str(error).partition("\n")
    lines = [line.strip() for line in rest.splitlines()]
    return head, "\n".join([*lines, *([advice] if advice and not lines else [])])


def _ssh_advice(profile: Profile) -> str:
    port = f" -p {profile.port}" if profile.port else ""
    who = f"{profile.user}@{profile.host}" if profile.user else profile.host
    return f"try by hand: ssh{port} {who} true"


def runs_on(name: str) -> list[str]:
    """Names of the runs that were submitted from here to that cluster."""
    folder = runs_dir() / ELSEWHERE
    records = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return [path.stem for path in records if (read_json(path) or {}).get("cluster") == name]
