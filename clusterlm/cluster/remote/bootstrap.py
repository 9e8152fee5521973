"""The same clusterlm on a cluster: found there, or installed; nothing but a Python is needed.

What runs over there is chosen by a digest of the code that runs here, so an older one is never
used by mistake (`forward.py` looks at it in every call). An installation is two virtual
environments, see `install_there.py`. Packages come from the index that pip knows there; a site
without one gets wheels: those of `--wheelhouse`, else fetched here for its Python.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterlm import __version__
from clusterlm.cluster.images.wheel import WHEEL_NAME, build_wheel, code_digest, requirements_of
from clusterlm.cluster.log_text import readable
from clusterlm.cluster.remote import install_there
from clusterlm.cluster.remote.line_sink import LineSink
from clusterlm.cluster.remote.profile_there import profile_mark, profile_path, profile_text
from clusterlm.cluster.remote.put_there import INSTALLING, put
from clusterlm.cluster.remote.wheelhouse import TargetPython, fetch_wheels
from clusterlm.cluster.ssh.lines import last_lines
from clusterlm.errors import ClusterLMError, ConnectionLost
from clusterlm.spec.probe import probe_file

if TYPE_CHECKING:
    from clusterlm.cluster.ssh.transport import Transport
    from clusterlm.spec.profile import Profile

PROBE_TIMEOUT_S = 60.0

# what is asked first: one call, whatever shell and Pythons there are
_PROBE = r"""
umask 077
case $1 in "~"|"~/"*) folder=$HOME${1#"~"};; *) folder=$1;; esac
# one after the other: what is wrong with the folder is told once
for one in software objects submits; do mkdir -p "$folder/$one" || exit 3; done
printf 'home %s\nfolder %s\n' "$HOME" "$folder"
printf 'ready %s\n' "$(cat "$folder/software/$2/READY" 2>/dev/null)"
printf 'extras %s\n' "$(cat "$folder/software/extras" 2>/dev/null)"
facts=$3
shift 3
for name in "$@"; do
  case $name in "~"|"~/"*) name=$HOME${name#"~"};; esac
  # a Python that is a script of the site may say something first
  found=$("$name" -I -s -c "$facts" 2>/dev/null) &&
  { printf 'python %s\n' "$(printf '%s\n' "$found" | tail -n 1)"; exit 0; }
done
exit 0
"""
_FACTS = """
import json, platform, sys, sysconfig, venv
assert sys.version_info >= (3, 10)
sites = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
print(json.dumps({
    "executable": sys.executable, "version": "%d.%d" % sys.version_info[:2], "sites": sites,
    "platform": sysconfig.get_platform(), "libc": platform.libc_ver(),
}))
"""
_CANDIDATES = (*(f"python3.{minor}" for minor in range(14, 9, -1)), "python3", "python")


@dataclass(frozen=True)
class Installed:
    """The clusterlm of a cluster.

    Attributes:
        python: what runs it.
        folder: of the profile, absolute.
        home: of the user there.
        is_new: it was installed just now.
    """

    python: str
    folder: str
    home: str
    is_new: bool = False


def bootstrap(
    transport: Transport,
    name: str,
    profile: Profile,
    *,
    wheelhouse: Path | None = None,
    extras: Sequence[str] | None = None,
    tell: Callable[[str], None],
    answered: Callable[[], None] = lambda: None,
) -> Installed:
    """Make sure that this very clusterlm, and this profile, are on the cluster.

    Args:
        transport: to its login node.
        name: of the profile.
        profile: with `folder`.
        wheelhouse: folder of wheels here, for a site without a package index.
        extras: of clusterlm to install too, such as `train` for jobs without an image; None: those
            of the last time.
        tell: gets a line at each step that takes its time.
        answered: called when the other side has been reached.

    Raises:
        SshError: no connection.
        ClusterLMError: no Python of 3.10 or newer there, no room, or no packages.
    """
    found = _probe(transport, name, profile)
    answered()
    wanted = sorted(set(extras)) if extras is not None else found.extras
    code = software_name(profile)
    is_new = found.ready != ready_text(profile) or wanted != found.extras
    if is_new:
        _install(transport, name, profile, found, wanted, wheelhouse, tell)
    _write_profile(transport, name, profile, found)
    python = posixpath.join(found.folder, "software", code, "bin", "python")
    return Installed(python, found.folder, found.home, is_new)


def software_name(profile: Profile) -> str:
    """Of the installation that this code needs: `<version>-<digest>`."""
    return f"{__version__}-{ready_text(profile)[:12]}"


def ready_text(profile: Profile) -> str:
    """What READY of that installation says: digest of the code, and of what it stands upon."""
    return hashlib.sha256(f"{code_digest()} {profile.python or ''}".encode()).hexdigest()


@dataclass(frozen=True)
class _Found:
    home: str
    folder: str
    ready: str
    extras: list[str]
    python: dict[str, Any] | None


def _probe(transport: Transport, name: str, profile: Profile) -> _Found:
    if not profile.folder:
        raise ClusterLMError(f"{name}: its profile has no `folder`: clusterlm clusters edit {name}")
    pythons = [profile.python] if profile.python else list(_CANDIDATES)
    argv = ["sh", "-c", _PROBE, "sh", profile.folder, software_name(profile), _FACTS, *pythons]
    doing = "a look at what is installed there"
    done = transport.run(argv, timeout_s=PROBE_TIMEOUT_S, doing=doing)
    if done.code is None:
        raise ConnectionLost(f"{name} gave no answer in {PROBE_TIMEOUT_S:.0f} s")
    if done.code:
        words = readable(" ".join(done.err.split()).encode())
        raise ClusterLMError(f"{name}: {profile.folder} cannot be written there: {words}")
    answers = dict(line.partition(" ")[::2] for line in done.out.splitlines())
    python = _python_of(answers["python"]) if answers.get("python") else None
    extras = sorted(answers.get("extras", "").split())
    home, folder = answers.get("home", ""), answers.get("folder", "")
    if not (home.startswith("/") and folder.startswith("/")) or python == {}:
        raise ClusterLMError(
            f"{name}: what came back of {doing} is no answer:\n{last_lines(done.out.encode())}"
        )
    return _Found(home, folder, answers.get("ready", ""), extras, python)


def _python_of(text: str) -> dict[str, Any]:
    """What a Python there said of itself; empty when it said something else."""
    try:
        facts = json.loads(text)
        is_whole = all(
            isinstance(facts[k], str) for k in ("executable", "version", "platform")
        ) and all(isinstance(facts[k], list) for k in ("sites", "libc"))
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    return facts if is_whole else {}


def _install(
    transport: Transport,
    name: str,
    profile: Profile,
    found: _Found,
    extras: list[str],
    wheelhouse: Path | None,
    tell: Callable[[str], None],
) -> None:
    python = found.python
    if python is None:
        tried = profile.python or "python3.14 to python3.10, python3"
        raise ClusterLMError(
            f"{name}: no Python 3.10 or newer there (tried {tried})\n"
            "  name one that every node sees: `python` of the profile, or a `setup` that loads one"
        )
    tell(f"{name}: installing clusterlm {software_name(profile)} with {python['executable']}")
    wheel = _send_wheel(transport, found.folder, profile)
    requirements = [r for extra in (None, *extras) for r in requirements_of(extra)]
    request = {
        "code": software_name(profile),
        "deps": _deps_name(requirements, python),
        "ready": ready_text(profile),
        "wheel": wheel,
        "requirements": requirements,
        # a site's own packages, behind ours
        "sites": python["sites"],
        "index": wheelhouse is None,
        "wheels": None,
    }
    if wheelhouse is not None:
        _send_wheels(transport, found, wheelhouse, request, tell)
    code, words = _run_installer(transport, name, found, request, tell)
    if wheelhouse is None and code in (install_there.EXIT_NO_PACKAGES, install_there.EXIT_NO_PIP):
        last = words.splitlines()[-1].strip() if words else "no pip"
        tell(f"{name}: pip finds nothing there ({last}); wheels for it are fetched here")
        with fetch_wheels(requirements, TargetPython.of(python)) as folder:
            _send_wheels(transport, found, folder, request, tell)
        request["index"] = False
        code, words = _run_installer(transport, name, found, request, tell)
    if code:
        raise ClusterLMError(f"{name}: clusterlm cannot be installed there (exit {code})\n{words}")
    transport.run(
        [
            "sh",
            "-c",
            'printf "%s\\n" "$2" > "$1"',
            "sh",
            f"{found.folder}/software/extras",
            " ".join(extras),
        ],
        doing=INSTALLING,
    )


def _deps_name(requirements: list[str], python: dict[str, Any]) -> str:
    key = json.dumps([requirements, python["executable"], python["version"]])
    return f"deps-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _run_installer(
    transport: Transport,
    name: str,
    found: _Found,
    request: dict[str, Any],
    tell: Callable[[str], None],
) -> tuple[int | None, str]:
    assert found.python is not None
    text = Path(install_there.__file__).read_text(encoding="utf-8")
    text = text.replace("= {}", f"= {request!r}", 1)
    # how far it is, is for somebody who waits before a screen
    is_watched = sys.stderr.isatty()

    def each(line: bytes) -> None:
        if is_watched or not line.startswith(install_there.PROGRESS.encode()):
            tell(f"{name}: {readable(line)}")

    sink = LineSink(each)
    done = transport.pipe(
        [found.python["executable"], "-I", "-", found.folder],
        source=io.BytesIO(text.encode()),
        sink=sink.as_file(),
        doing=INSTALLING,
    )
    lines = [readable(line.encode()) for line in done.err.splitlines() if line.strip()]
    return done.code, "\n".join(f"  {line}" for line in lines[-install_there.TAIL :])


def _send_wheel(transport: Transport, folder: str, profile: Profile) -> str:
    """Put this code there; gives its path."""
    target = f"{folder}/software/wheels/{ready_text(profile)[:12]}/{WHEEL_NAME}"
    put(transport, build_wheel(), target)
    return target


def _send_wheels(
    transport: Transport,
    found: _Found,
    wheelhouse: Path,
    request: dict[str, Any],
    tell: Callable[[str], None],
) -> None:
    from clusterlm.cluster.ssh.transfer import send_file

    wheels = sorted(wheelhouse.glob("*.whl"))
    if not wheels:
        raise ClusterLMError(f"{wheelhouse} holds no wheels (*.whl)")
    names = "\n".join(wheel.name for wheel in wheels)
    assert found.python is not None
    python = found.python["executable"]
    target = f"{found.folder}/software/wheels/{hashlib.sha256(names.encode()).hexdigest()[:12]}"
    tell(f"sending {len(wheels)} wheels")
    for wheel in wheels:
        send_file(transport, wheel, f"{target}/{wheel.name}", python=python, mode=0o600)
    request["wheels"] = target


def _write_profile(transport: Transport, name: str, profile: Profile, found: _Found) -> None:
    """The profile as the clusterlm there reads it: of a cluster that it stands on itself."""
    target = profile_path(found.folder, name)
    mark = profile_mark(profile)
    doing = "a look at the profile there"
    done = transport.run(["head", "-n", "1", target], doing=doing)
    if done.is_ok and done.out.strip() == mark:
        return
    probe = probe_file(name)
    if probe.is_file():
        # what doctor found is of no use here alone: jobs are rendered there
        put(transport, probe.read_bytes(), f"{posixpath.dirname(target)}/probes/{name}.json")
    put(transport, profile_text(name, profile, found.folder, found.home).encode(), target)
