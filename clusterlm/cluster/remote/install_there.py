"""Installs clusterlm on a cluster. Its text is sent to the Python there: standard library only.

    python -I - FOLDER < (this text, with REQUEST filled in)

Two virtual environments, each made under a name of its own, with READY written last, and then
linked to: a kill at any moment, or two installs at once, leave whole ones or nothing.

    software/deps-<digest>        what clusterlm requires; made by pip, once for many versions
    software/<version>-<digest>   the code itself; sees, in this order: its own folder, deps, and
                                  the packages of the Python that the profile names
"""

import json
import os
import selectors
import shutil
import subprocess
import sys
import time
import uuid
import venv
import zipfile
from pathlib import Path
from typing import Any

REQUEST: dict[str, Any] = {}
"""`code`, `deps`: names of the two; `ready`: text of READY; `wheel`: file; `requirements`; `sites`;
`index`: whether pip may ask one; `wheels`: folder of wheels, or None."""

ABANDONED_S = 24 * 3600
EXIT_NO_PACKAGES = 3
EXIT_NO_PIP = 4
TAIL = 12
PROGRESS = "  ..."
"""Begins a line that says how far it is; the others are the steps."""
EVERY_S = 5.0
_BEGAN = time.monotonic()
_CHATTER = ("Collecting ", "Downloading ", "Using cached ", "Looking in ", "Processing ", "  ")


def main(folder: Path) -> int:
    """Install what is lacking; gives the exit code."""
    os.umask(0o077)
    software = folder / "software"
    made = software / ".made"
    made.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(made)
    deps = software / REQUEST["deps"]
    if not (deps / "READY").exists():
        code = _make_deps(made, deps)
        if code:
            return code
    else:
        # whoever removes what nobody uses sees that it is wanted
        os.utime(deps / "READY")
        _say("the packages that clusterlm needs are there")
    _make_code(made, software / REQUEST["code"], deps)
    _say(f"installed in {_seconds()} s")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _seconds() -> int:
    return round(time.monotonic() - _BEGAN)


def _make_deps(made: Path, link: Path) -> int:
    whence = "the wheels that were sent" if not REQUEST["index"] else "the package index"
    _say(f"step 1 of 2: {', '.join(REQUEST['requirements'])}, from {whence}; about a minute")
    root = _new(made, link)
    if not _has_pip(root):
        print("this Python has neither ensurepip nor pip", file=sys.stderr)
        shutil.rmtree(root, ignore_errors=True)
        return EXIT_NO_PIP
    argv = [*_pip(root), "install", "--no-input", "--disable-pip-version-check"]
    argv += ["--no-warn-script-location", "--progress-bar", "off"]
    if REQUEST["wheels"]:
        argv += ["--find-links", REQUEST["wheels"]]
    if not REQUEST["index"]:
        argv += ["--no-index"]
    else:
        # a site without a network is told apart in seconds
        argv += ["--retries", "1", "--timeout", "15"]
    code, lines = _watched([*argv, *REQUEST["requirements"]])
    if code:
        shutil.rmtree(root, ignore_errors=True)
        kept = [line for line in lines if not line.startswith(_CHATTER)] or lines
        print("\n".join(kept[-TAIL:]), file=sys.stderr)
        return EXIT_NO_PACKAGES
    _publish(root, link, REQUEST["deps"])
    return 0


def _watched(argv: list[str]) -> tuple[int, list[str]]:
    """Run pip, and say now and then what it is at."""
    lines: list[str] = []
    doing, num_fetched, said_at = "starting pip", 0, time.monotonic()
    pip = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # pip's own output is not buffered by lines where nobody looks
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert pip.stdout is not None
    rest = b""
    with pip, selectors.DefaultSelector() as waits:
        waits.register(pip.stdout, selectors.EVENT_READ)
        while True:
            if waits.select(EVERY_S):
                piece = os.read(pip.stdout.fileno(), 65536)
                if not piece:
                    break
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    text = line.decode(errors="replace")
                    lines.append(text)
                    words = text.split()
                    if text.startswith("Collecting "):
                        num_fetched += 1
                        doing = f"fetching {words[1]} (package {num_fetched})"
                    elif text.startswith("Installing collected packages"):
                        doing = f"installing {len(words) - 3} packages"
            if time.monotonic() - said_at >= EVERY_S:
                said_at = time.monotonic()
                _say(f"{PROGRESS} {doing}, {_seconds()} s")
    return pip.returncode, [*lines, rest.decode(errors="replace")] if rest else lines


def _has_pip(root: Path) -> bool:
    python = str(root / "bin" / "python")
    done = subprocess.run([python, "-m", "ensurepip"], capture_output=True)
    return done.returncode == 0 or bool(_pip_wheels())


def _pip(root: Path) -> list[str]:
    """How pip is started; Debian has Pythons without ensurepip, so it may be a wheel."""
    python = str(root / "bin" / "python")
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return [python, "-m", "pip"]
    return [python, f"{_pip_wheels()[-1]}/pip"]


def _pip_wheels() -> list[str]:
    return sorted(map(str, Path(REQUEST["wheels"]).glob("pip-*.whl"))) if REQUEST["wheels"] else []


def _make_code(made: Path, link: Path, deps: Path) -> None:
    _say("step 2 of 2: the code of clusterlm itself")
    root = _new(made, link)
    site = _site_packages(root)
    with zipfile.ZipFile(REQUEST["wheel"]) as wheel:
        wheel.extractall(site)
    # own packages come first: a folder added by addsitedir goes to the end of sys.path
    lines = [_site_line(_site_packages(deps)), *map(_site_line, REQUEST["sites"])]
    (site / "clusterlm_sites.pth").write_text("".join(f"{line}\n" for line in lines))
    _write_command(root)
    python = str(root / "bin" / "python")
    subprocess.run([python, "-I", "-m", "compileall", "-q", "-j", "0", str(site)], check=False)
    subprocess.run([python, "-I", "-c", "import clusterlm.cli"], check=True)
    _publish(root, link, REQUEST["ready"])


def _site_line(path: object) -> str:
    # a line of a .pth that begins with `import` is run
    return f"import site; site.addsitedir({str(path)!r})"


def _write_command(root: Path) -> None:
    command = root / "bin" / "clusterlm"
    command.write_text('#!/bin/sh\nexec "$(dirname "$0")/python" -m clusterlm "$@"\n')
    command.chmod(0o700)


def _new(made: Path, link: Path) -> Path:
    """A new virtual environment, without pip."""
    root = made / f"{link.name}.{uuid.uuid4().hex[:8]}"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(root)
    return root


def _site_packages(root: Path) -> Path:
    # not by sysconfig: Debian's own schemes mean another folder
    return root / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def _publish(root: Path, link: Path, ready: str) -> None:
    (root / "install.json").write_text(json.dumps({**REQUEST, "time": time.time()}))
    (root / "READY").write_text(ready + "\n")
    aside = link.with_name(f".{link.name}.{uuid.uuid4().hex[:8]}")
    aside.symlink_to(os.path.relpath(root, link.parent))
    if link.is_dir() and not link.is_symlink():
        # no work of ours
        link.rename(aside.with_name(f"{aside.name}.old"))
    os.replace(aside, link)


def _remove_abandoned(made: Path) -> None:
    for root in made.iterdir():
        try:
            is_old = time.time() - root.stat().st_mtime > ABANDONED_S
        except OSError:
            continue
        if is_old and not (root / "READY").exists():
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
