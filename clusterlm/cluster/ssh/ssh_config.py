"""ssh_config for the transport that has no `ssh` program to ask: what it says of one host.

Of each key the first value counts, of IdentityFile and CertificateFile all. Read are Host, Include,
`Match` with all, host, originalhost, user and localuser, and the percent words of OpenSSH. What
would need the program (`Match exec`, canonical names, a list of revoked keys) is refused with the
advice to take `transport: openssh`: half of a configuration would be another one.
"""

from __future__ import annotations

import fnmatch
import getpass
import glob
import os
import re
import shlex
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.ssh.address import Address
from clusterlm.errors import SshError

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
DEPTH = 16
ALL_COUNT = ("identityfile", "certificatefile")
# key -> values that are refused; none named: all but no and none
NEEDS_OPENSSH = {
    "canonicalizehostname": ("yes", "always"),
    "revokedhostkeys": (),
    "pkcs11provider": (),
}
LINE = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*?)\s*\Z")


@dataclass(frozen=True)
class HostConfig:
    """What ssh_config says of one host, every word filled in.

    Attributes:
        alias: name under which known_hosts has it, None for the address itself.
        jumps: hosts on the way, the nearest first.
        proxy_command: a program that makes the connection instead.
        keys: key files; those that are there count.
        keys_only: an agent's other keys are not offered.
        agent: its socket, None for no agent.
    """

    host: str
    port: int
    user: str
    alias: str | None
    jumps: tuple[Address, ...]
    proxy_command: str | None
    keys: tuple[Path, ...]
    keys_only: bool
    certificates: tuple[Path, ...]
    agent: str | None
    known_hosts: tuple[Path, ...]
    connect_s: float


def read_config(address: Address, files: Sequence[Path]) -> HostConfig:
    """Look a host up.

    Raises:
        SshError: a file cannot be read, or says what only OpenSSH can do.
    """
    values: dict[str, list[str]] = {}
    if address.user:
        values["user"] = [address.user]
    if address.port:
        values["port"] = [str(address.port)]
    for file in files:
        if file.is_file():
            _Reader(address, values).read(file, lambda: True)
    _refuse(address, values)
    return _filled(address, values)


class _Reader:
    def __init__(self, address: Address, values: dict[str, list[str]]) -> None:
        self._address = address
        self._values = values

    def read(self, file: Path, outer: Callable[[], bool], depth: int = 0) -> None:
        if depth > DEPTH:
            raise SshError(f"{file}: files that include each other")
        try:
            lines = file.read_text(errors="surrogateescape").splitlines()
        except OSError as error:
            raise SshError(f"{file}: {error.strerror}") from error
        applies = outer()
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            found = LINE.match(line)
            if found is None:
                continue
            key, text = found[1].lower(), found[2]
            place = f"{file} line {number}"
            if key == "host":
                applies = outer() and _any_pattern(_words(text, place), self._address.host)
            elif key == "match":
                applies = outer() and self._match(_words(text, place), place)
            elif key == "include" and applies:
                for path in _included(_words(text, place), file):
                    self.read(path, lambda: True, depth + 1)
            elif applies and key != "include":
                self._set(key, text, place)

    def _set(self, key: str, text: str, place: str) -> None:
        if key in ("proxycommand", "remotecommand", "localcommand"):
            value = text
        else:
            value = " ".join(_words(text, place)) if key != "userknownhostsfile" else text
        if key in ALL_COUNT:
            self._values.setdefault(key, []).append(value)
        elif key in ("proxyjump", "proxycommand"):
            # whichever of the two stands first switches the other off
            if not {"proxyjump", "proxycommand"} & set(self._values):
                self._values[key] = [value]
        else:
            self._values.setdefault(key, [value])

    def _match(self, words: list[str], place: str) -> bool:
        """All its conditions hold."""
        holds = True
        words = list(words)
        while words:
            word = words.pop(0)
            name, negated = word.lstrip("!").lower(), word.startswith("!")
            if name == "all":
                continue
            if name in ("canonical", "final"):
                # for a second reading, which there is none of
                holds &= negated
                continue
            if name not in ("host", "originalhost", "user", "localuser"):
                raise SshError(
                    f"{place}: `Match {name}` is read by OpenSSH alone: set `transport: openssh`"
                )
            patterns = words.pop(0).split(",") if words else []
            holds &= _any_pattern(patterns, self._subject(name)) != negated
        return holds

    def _subject(self, name: str) -> str:
        if name == "localuser":
            return getpass.getuser()
        if name == "user":
            return self._values.get("user", [getpass.getuser()])[0]
        if name == "host":
            host = self._values.get("hostname", [self._address.host])[0]
            return host.replace("%h", self._address.host)
        return self._address.host


def _words(text: str, place: str) -> list[str]:
    try:
        lexer = shlex.shlex(text, posix=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        lexer.quotes, lexer.escape = '"', ""
        words = list(lexer)
    except ValueError as error:
        raise SshError(f"{place}: {error}") from error
    # since OpenSSH 8.7 a comment may end a line
    cut = next((i for i, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:cut]


def _any_pattern(patterns: Iterable[str], name: str) -> bool:
    found = False
    for pattern in patterns:
        negated, plain = pattern.startswith("!"), pattern.removeprefix("!")
        if matches(plain, name):
            if negated:
                return False
            found = True
    return found


def matches(pattern: str, name: str) -> bool:
    """OpenSSH's wildcards are * and ? alone; case counts in ssh_config."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _included(words: list[str], file: Path) -> list[Path]:
    found = []
    # a relative one lies beside the user's own, or the system's
    base = Path("/etc/ssh") if file.is_relative_to("/etc/ssh") else Path.home() / ".ssh"
    for word in words:
        path = Path(os.path.expanduser(word))
        found += sorted(glob.glob(str(path if path.is_absolute() else base / path)))
    return [Path(path) for path in found]


def _refuse(address: Address, values: dict[str, list[str]]) -> None:
    for key, bad in NEEDS_OPENSSH.items():
        value = values.get(key, ["no"])[0]
        if value.lower() in ("no", "none"):
            continue
        if not bad or value.lower() in bad:
            raise SshError(
                f"{address}: ssh_config sets {key} {value}, which only OpenSSH can do: "
                "set `transport: openssh`"
            )


def _filled(address: Address, values: dict[str, list[str]]) -> HostConfig:
    def first(key: str, default: str) -> str:
        return values.get(key, [default])[0]

    host = first("hostname", "%h").replace("%h", address.host).replace("%%", "%").lower()
    port = int(first("port", "22"))
    user = first("user", getpass.getuser())
    fill = _filler(host, address.host, port, user)
    jump, command = first("proxyjump", "none"), first("proxycommand", "none")
    home = Path.home() / ".ssh"
    keys = values.get("identityfile") or [str(home / name) for name in DEFAULT_KEYS]
    known = first("userknownhostsfile", f"{home}/known_hosts {home}/known_hosts2")
    system = first("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2")
    agent = first("identityagent", "SSH_AUTH_SOCK")
    if agent == "SSH_AUTH_SOCK":
        agent = os.environ.get("SSH_AUTH_SOCK", "none")
    return HostConfig(
        host=host,
        port=port,
        user=user,
        alias=values["hostkeyalias"][0] if "hostkeyalias" in values else None,
        jumps=() if jump.lower() == "none" else tuple(map(_jump, jump.split(","))),
        proxy_command=None if command.lower() == "none" else fill(command),
        keys=tuple(_path(fill(key)) for key in keys if key.lower() != "none"),
        keys_only=first("identitiesonly", "no").lower() == "yes",
        certificates=tuple(_path(fill(path)) for path in values.get("certificatefile", [])),
        agent=None if agent.lower() == "none" else str(_path(fill(agent.removeprefix("$")))),
        known_hosts=tuple(
            _path(fill(word))
            for word in [*_words(known, "UserKnownHostsFile"), *system.split()]
            if word.lower() != "none"
        ),
        connect_s=float(first("connecttimeout", "15").replace("none", "15")),
    )


def _filler(host: str, written: str, port: int, user: str) -> Callable[[str], str]:
    here = socket.gethostname()
    table = {
        "%%": "%",
        "%h": host,
        "%n": written,
        "%k": written,
        "%p": str(port),
        "%r": user,
        "%u": getpass.getuser(),
        "%d": str(Path.home()),
        "%i": str(os.getuid()),
        "%l": here,
        "%L": here.split(".")[0],
    }

    def fill(text: str) -> str:
        text = re.sub(r"\$\{(\w+)\}", lambda m: os.environ.get(m[1], m[0]), text)
        return re.sub(r"%.", lambda m: table.get(m[0], m[0]), text)

    return fill


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def _jump(text: str) -> Address:
    """[user@]host[:port], or ssh://[user@]host[:port]."""
    user, _, rest = text.strip().removeprefix("ssh://").rstrip("/").rpartition("@")
    found = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?", rest)
    if found is None:
        raise SshError(f"ProxyJump {text!r}: write [user@]host[:port]")
    port = found[2] or found[4]
    return Address(found[1] or found[3], user or None, int(port) if port else None)
