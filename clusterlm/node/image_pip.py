"""The pip steps in an image: everything may be added, the base's torch may not be replaced.

pip runs with constraints.txt on top of whatever the base pins by PIP_CONSTRAINT. Newer bases pin
all that they have, and clusterlm itself may want a newer pydantic. A pin that stands in the way
gives way, as NVIDIA's release notes advise, unless constraints.txt has it; every other one stays.

When pip fails, its output is read for the one thing that the user can change, and that is said
last. Build secrets are in pip's environment; their values are blotted out of what it prints.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from clusterlm.node.image_build import (
    BASE,
    BASE_CONSTRAINTS,
    CONSTRAINTS,
    EXIT_REFUSED,
    EXIT_REPLACED,
    SHORTEST,
    allows,
    canonical,
    name_of,
    refuse,
    secret_env,
    secret_values,
)
from clusterlm.node.redact import Redactor

CACHE = Path("/root/.cache/pip")

# "    evilpkg 1.0 depends on torch==2.9.9"; with an extra: "peft[x] 1.0 depends on ..."
_DEPENDS = re.compile(r"^\s+(\S+ \S+) depends on (.+)$", re.MULTILINE)
_ASKED = re.compile(r"^\s+The user requested (\(constraint\) )?(.+)$", re.MULTILINE)
# "Collecting evilpkg (from good>=1->-r requirements.txt (line 1))", from a folder "Processing
# /wheelhouse/evilpkg-1.0-py3-none-any.whl (from good->...)"; pip before 23.1 says no "from"
_COLLECTING = re.compile(
    r"^(?:Collecting|Processing) (?:\S*/)?([\w.-]+?)(?:-\d\S*)?(?:[ =<>!~;\[].*)?"
    r" \(from (?!-r)(.+)\)$",
    re.MULTILINE,
)
# the parent of the one that conflicts: all that pip before 23.1 says of where it comes from
_TRIGGER = re.compile(r"^ERROR: Cannot install ([\w.-]+) because", re.MULTILINE)
_NO_VERSION = re.compile(
    r"Could not find a version that satisfies the requirement (.+?)"
    r"(?: \(from (?!versions)(.+?)\))? \(from versions: (.*)\)"
)
# since pip 25.1, below a conflict: one name a line
_NOWHERE = re.compile(
    r"no matching distributions available for your environment:\n((?:    \S+\n?)+)"
)
_OTHER_PYTHON = re.compile(r"require[s]? a different python", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"Failed to establish a new connection|name resolution|Network is unreachable|Read timed out"
    r"|ConnectTimeoutError|Connection refused|Connection reset|ProxyError|NewConnectionError"
    r"|SSLError"
)
_ADD_GIT = "  add git and ca-certificates to image.apt"
_REFUSED_LOGIN = re.compile(r"\b(401|403) (Client )?Error")


def install(what: str, *, wheelhouse: str | None, no_deps: bool) -> None:
    """Add a requirements file or a wheel; on failure say what to change.

    Args:
        what: path of the file.
        wheelhouse: folder that everything comes from; None asks the index.
        no_deps: the wheel alone; what it needs is there.
    """
    argv = [sys.executable, "-m", "pip", "install", "--no-input", "-c", str(CONSTRAINTS)]
    argv += ["--progress-bar", "off"]
    if wheelhouse or no_deps:
        argv += ["--no-index"]
    if wheelhouse:
        argv += ["--find-links", wheelhouse]
    if not os.path.ismount(CACHE):
        argv += ["--no-cache-dir"]
    # an extra may have brought a clusterlm of the same version, which pip would leave
    argv += ["--no-deps", "--force-reinstall", what] if no_deps else ["-r", what]
    hide = Redactor(secret_values(), shortest=SHORTEST)
    code, output = _run(argv, _pip_env(), hide)
    while code and (names := _give_way(output)):
        print(f"the base's pin of {', '.join(names)} gives way: trying again", flush=True)
        code, output = _run(argv, _pip_env(), hide)
    if code:
        base = json.loads(BASE.read_text())
        written = () if no_deps else Path(what).read_text().splitlines()
        exit_code, lines = explain(
            output, base, has_wheelhouse=wheelhouse is not None, written=written
        )
        refuse(exit_code, *lines)


def _give_way(output: str) -> list[str]:
    """Take out of the base's pins those that this conflict names; says which."""
    held = {name_of(line) for line in CONSTRAINTS.read_text().splitlines()}
    wishes = {name_of(wish) for who, wish in _DEPENDS.findall(output)}
    wishes |= {name_of(wish) for is_constraint, wish in _ASKED.findall(output) if not is_constraint}
    pins = {name_of(wish) for is_constraint, wish in _ASKED.findall(output) if is_constraint}
    if wishes & held:
        # about torch: no other pin is at fault
        return []
    lines = BASE_CONSTRAINTS.read_text().splitlines()
    left = [line for line in lines if name_of(line) not in (pins & wishes)]
    BASE_CONSTRAINTS.write_text("".join(f"{line}\n" for line in left))
    return sorted({name_of(line) for line in lines} - {name_of(line) for line in left})


def _pip_env() -> dict[str, str]:
    """Options by their variables: an older pip passes over those that it does not know."""
    return {
        **secret_env(),
        "PIP_CACHE_DIR": str(CACHE),
        "PIP_CONSTRAINT": str(BASE_CONSTRAINTS),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        # Debian's Python refuses pip beside apt; the image is nobody else's
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
    }


def _run(argv: list[str], env: dict[str, str], hide: Redactor) -> tuple[int, str]:
    """Exit code and output, which is shown as it comes."""
    lines = []
    with subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(hide(line))
            print(lines[-1], end="", flush=True)
    return pip.returncode, "".join(lines)


def explain(
    output: str, base: dict[str, object], *, has_wheelhouse: bool, written: Sequence[str] = ()
) -> tuple[int, tuple[str, ...]]:
    """Exit code and message for pip's failure, from what it printed.

    Args:
        output: all that pip printed.
        base: base.json.
        has_wheelhouse: pip took everything from a folder.
        written: the lines of the requirements file.
    """
    guarded = base["guarded"]
    assert isinstance(guarded, dict)
    asked = [(who, wish) for who, wish in _wishes(output) if name_of(wish) in guarded]
    asked = [(who, wish) for who, wish in asked if not allows(wish, guarded[name_of(wish)])]
    if asked:
        return EXIT_REPLACED, _replaced(output, asked, base, written)
    missing = _NO_VERSION.search(output)
    absent = (missing[1], missing[2], missing[3]) if missing else _absent(output)
    if absent is None and (conflict := _conflict(output)):
        return EXIT_REFUSED, conflict
    if "Cannot find command 'git'" in output:
        return EXIT_REFUSED, ("a package comes from git, and the image has none", _ADD_GIT)
    if _REFUSED_LOGIN.search(output):
        return EXIT_REFUSED, (
            "the package index refused the login",
            "  give its URL with user and password as the build secret PIP_INDEX_URL",
        )
    if _UNREACHABLE.search(output):
        return EXIT_REFUSED, (
            "pip could not reach the package index",
            "  a mirror: its URL as the build secret PIP_INDEX_URL (image.build_secrets)",
            "  no network at all: a folder of wheels as image.wheelhouse",
        )
    if absent:
        return EXIT_REFUSED, _missing(absent, output, base, has_wheelhouse)
    errors = [line.strip() for line in output.splitlines() if "error" in line.lower()]
    return EXIT_REFUSED, ("pip failed", *(f"  {line}" for line in errors[-3:]))


def _wishes(output: str) -> list[tuple[str, str]]:
    """Who wants what, of the packages that pip could not bring together."""
    wishes = [(who, wish.strip()) for who, wish in _DEPENDS.findall(output)]
    for wish, who, _ in _NO_VERSION.findall(output):
        if who and not who.startswith("-r"):
            wishes.append((who.split("->")[0], wish))
    return list(dict.fromkeys(wishes))


def _replaced(
    output: str, asked: list[tuple[str, str]], base: dict[str, object], written: Sequence[str]
) -> tuple[str, ...]:
    guarded = base["guarded"]
    assert isinstance(guarded, dict)
    names = sorted({name_of(wish) for _, wish in asked})
    packages = sorted({who.split(" ")[0].split("[")[0] for who, _ in asked})
    parents = _parents(output)
    as_written = {name_of(line): line.strip() for line in written}
    rows = []
    for who, wish in asked:
        top = _top(name_of(who), parents)
        by = "" if top == name_of(who) else f" ({as_written.get(top, top)} asks for it)"
        rows.append(f"  {who} wants {wish}{by}")
    return (
        f"{', '.join(packages)} would replace the base's {', '.join(names)}",
        *rows,
        *(f"  the base {base['name']} has {name} {guarded[name]}" for name in names),
        f"  choose a version of {', '.join(packages)} that goes with the base, leave it out, or"
        " choose a base that has what it wants",
    )


def _parents(output: str) -> dict[str, str]:
    """Who asked for a package first, by name."""
    parents: dict[str, str] = {}
    for name, chain in _COLLECTING.findall(output):
        # "evilpin==1.0->eviluser->-r requirements.txt (line 1)"; old pips stop after the first
        links = [link for link in chain.split("->") if not link.startswith("-r ")]
        for child, parent in pairwise([name, *links]):
            parents.setdefault(name_of(child), name_of(parent))
    whos = {name_of(who) for who, _ in _DEPENDS.findall(output)}
    if len(whos) == 1 and (trigger := _TRIGGER.search(output)):
        parents.setdefault(whos.pop(), name_of(trigger[1]))
    return parents


def _top(name: str, parents: dict[str, str]) -> str:
    """The requirement of the file that brings `name`."""
    seen = {name}
    while (parent := parents.get(name)) and parent not in seen:
        seen.add(parent)
        name = parent
    return name


def _absent(output: str) -> tuple[str, str, str] | None:
    """A requirement that no package at hand fulfils, though pip speaks of a conflict.

    pip does so when two want the same: `numpy==1.26` that no index has, beside `numpy>=1.17`.
    """
    wishes = [("", wish) for is_constraint, wish in _ASKED.findall(output) if not is_constraint]
    wishes += [(who.split(" ")[0], wish) for who, wish in _DEPENDS.findall(output)]
    bounds = [wish for _, wish in wishes]
    bounds += [wish for is_constraint, wish in _ASKED.findall(output) if is_constraint]
    nowhere = _NOWHERE.search(output)
    names = {canonical(name) for name in nowhere.group(1).split()} if nowhere else set()
    is_about_one = len({name_of(bound) for bound in bounds}) == 1
    for who, wish in wishes:
        pinned = re.fullmatch(r"[^=<>!~;,]+===?\s*([^\s,;*]+)", wish.partition(";")[0].strip())
        fits = is_about_one and pinned and all(allows(other, pinned[1]) for other in bounds)
        if fits or name_of(wish) in names:
            return wish, who, ""
    return None


def _conflict(output: str) -> tuple[str, ...] | None:
    """Packages that exclude each other, none of them guarded."""
    rows = [f"  {who} wants {wish}" for who, wish in _DEPENDS.findall(output)]
    held = False
    for is_constraint, wish in _ASKED.findall(output):
        held = held or bool(is_constraint)
        rows.append(f"  the base holds {wish}" if is_constraint else f"  asked for: {wish}")
    if not rows:
        return None
    advice = "  what the base holds stays: ask for versions that go with it" if held else ""
    return (
        "these packages do not go together",
        *dict.fromkeys(rows),
        advice or "  loosen a pin in image.pip or image.requirements; clusterlm's own bounds stay",
    )


def _missing(
    absent: tuple[str, str, str], output: str, base: dict[str, object], has_wheelhouse: bool
) -> tuple[str, ...]:
    wish, who, versions = absent
    newest = versions.split(", ")[-1]
    rows = [f"pip finds no {wish}" + (f", which {who} wants" if who else "")]
    if _OTHER_PYTHON.search(output):
        rows.append(f"  other versions want another Python; the base has {base['python']}")
    if newest and newest != "none":
        rows.append(f"  the newest that goes with this base: {name_of(wish)}=={newest}")
    elif has_wheelhouse:
        rows.append(f"  put a wheel of it for Python {base['python']} into image.wheelhouse")
    else:
        rows.append("  look at its spelling, and at which versions the index has")
    return tuple(rows)
