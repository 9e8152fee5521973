"""Why a connection failed, in words, and what to do. One text for each cause, of both backends."""

from __future__ import annotations

import base64
import binascii
import errno
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clusterlm.cluster.ssh.address import Address
from clusterlm.cluster.ssh.known_hosts import fingerprint, name_of
from clusterlm.cluster.ssh.lines import last_lines
from clusterlm.errors import SshError


@dataclass(frozen=True)
class Target:
    """The machine at which it failed: the cluster, or a host on the way to it."""

    address: Address
    host: str
    port: int
    is_direct: bool = True
    keys: tuple[Path, ...] = ()

    def __str__(self) -> str:
        where = name_of(self.host, self.port)
        return f"{self.address}" if where == str(self.address) else f"{self.address} ({where})"


def no_name(target: Target) -> str:
    """The name is not known."""
    return (
        f"{target}: no machine has the name {target.host}\n"
        "look at `host`, or at HostName in ssh_config; some names are known only with a VPN"
    )


def refused(target: Target) -> str:
    """Nothing listens there."""
    return (
        f"{target}: nothing listens on port {target.port} there (connection refused)\n"
        "is it another port? set `port` in the profile, or Port in ssh_config"
    )


def timed_out(target: Target) -> str:
    """Nothing answers."""
    return (
        f"{target}: no answer (connection timed out)\n"
        "a firewall drops it, or the machine is down; is a VPN or a ProxyJump needed?"
    )


def no_route(target: Target) -> str:
    """The network is another."""
    return f"{target}: no way to it from here (no route)\nare you on the network, or the VPN?"


def no_banner(target: Target) -> str:
    """Something else than SSH answers, or too slowly."""
    return (
        f"{target}: something answers on port {target.port}, but it does not speak SSH, or is too "
        "busy to\ntry again in a minute; some sites block an address for a while after many tries"
    )


def cut_off(target: Target) -> str:
    """It hangs up."""
    return (
        f"{target}: it hung up before the login\n"
        "too many connections at once, or the site has blocked your address; try again in a minute"
    )


def not_let_in(target: Target, tried: Sequence[str], takes: Sequence[str], person: bool) -> str:
    """No key, or the wrong one."""
    rows = "\n".join(f"  {key}" for key in tried) or "  no key: none was found"
    lines = [f"{target}: did not let you in; keys that were tried:", rows]
    if takes:
        lines.append(f"it takes: {', '.join(takes)}")
    lines.append(f"put a key there with: {target.address.command.replace('ssh ', 'ssh-copy-id ')}")
    if not person:
        lines.append(
            "for a password, a code or a touch, run the command at a terminal once: the "
            "connection is kept for those that follow"
        )
    return "\n".join(lines)


def unknown_key(target: Target, keys: Sequence[bytes]) -> str:
    """`keys`: what it shows, which nobody has vouched for."""
    rows = "\n".join(f"  {fingerprint(key)}" for key in keys)
    lines = [f"{target}: its host key is not in your known_hosts, so it may be another machine"]
    if rows:
        lines += ["it shows:", rows, "compare with what the site publishes, then"]
    if target.is_direct and keys:
        port = "" if target.port == 22 else f"-p {target.port} "
        lines.append(f"  ssh-keyscan -H {port}{target.host} >> ~/.ssh/known_hosts")
        lines.append(f"or connect once by hand: {target.address.command}")
    else:
        lines.append(f"connect once by hand: {target.address.command}")
    return "\n".join(lines)


def changed_key(target: Target, key: str, places: Sequence[str]) -> str:
    """known_hosts has another key of the same kind."""
    return (
        f"{target}: ITS HOST KEY HAS CHANGED. Somebody may be listening in between, or the machine "
        f"was made anew.\nit shows {key}; known is another: {', '.join(places)}\n"
        "Ask the site. Only if it says that the key is new:\n"
        f"  ssh-keygen -R '{name_of(target.host, target.port)}'"
    )


def revoked_key(target: Target, key: str) -> str:
    """known_hosts says that the key was stolen."""
    return (
        f"{target}: its host key {key} IS REVOKED in your known_hosts: whoever shows it is not "
        "that machine.\nAsk the site."
    )


# as OpenSSH says it of a session over a connection that is shared
REFUSED_SESSION = b"Session open refused by peer"


def no_further_session(name: str) -> SshError:
    """The site limits what may run over one connection; nothing was started."""
    return SshError(
        f"{name}: the site allows no further session over this connection (MaxSessions)\n"
        "  end other commands of clusterlm first, such as `logs -f`, or give each a connection of\n"
        "  its own: `transport: paramiko` in the profile"
    )


def explain_openssh(target: Target, said: str, *, person: bool) -> str:
    """The message for what the `ssh` program printed when it could not connect."""
    shown = re.search(r"SHA256:[A-Za-z0-9+/]+", said)
    if "IDENTIFICATION HAS CHANGED" in said:
        places = re.findall(r"Offending .*? key in (\S+?):(\d+)", said)
        named = _named(target, re.search(r"Host key for (\S+) has changed", said))
        key = shown[0] if shown else "another key"
        return changed_key(named, key, [f"{file} line {line}" for file, line in places])
    if re.search(r"REVOKED HOST KEY|marked as revoked|revoked key", said):
        return revoked_key(target, shown[0] if shown else "")
    if re.search(r"Host key verification failed|host key is known", said):
        named = _named(target, re.search(r"host key is known for (\S+) and", said))
        keys = scan_keys(named) if named.is_direct or named is not target else []
        return unknown_key(replace(named, is_direct=bool(keys)), keys)
    if found := re.search(r"Permission denied(?: \(([a-z,-]+)\))?|Too many auth", said):
        takes = found[1].split(",") if found[1] else []
        return not_let_in(target, [*agent_keys(), *_key_files(target)], takes, person)
    for pattern, text in CAUSES:
        if re.search(pattern, said, re.IGNORECASE):
            return text(target)
    return f"{target}: no connection; ssh said:\n{last_lines(said.encode())}"


def _named(target: Target, found: re.Match[str] | None) -> Target:
    """The machine that ssh names, which may be one on the way."""
    if found is None or found[1] == name_of(target.host, target.port):
        return target
    host, _, port = found[1].strip("[").partition("]:")
    if not port.isdecimal():
        host, port = found[1], "22"
    return replace(target, host=host, port=int(port), is_direct=False)


def _key_files(target: Target) -> list[str]:
    rows = []
    for path in target.keys:
        if path.is_file():
            try:
                _, key, *_ = Path(f"{path}.pub").read_text().split()
                rows.append(f"{path}  {fingerprint(base64.b64decode(key))}")
            except (OSError, ValueError):
                rows.append(str(path))
    return rows


CAUSES = (
    (r"Could not resolve hostname|Name or service not known", no_name),
    (r"connect to host .*Connection refused", refused),
    (r"timed out during banner exchange|Timeout, server .* not responding", no_banner),
    (r"Bad (?:remote )?protocol version|banner exchange: .*invalid", no_banner),
    (r"Connection timed out|Operation timed out", timed_out),
    (r"No route to host|Network is unreachable|Host is down", no_route),
    (r"kex_exchange_identification|Connection (?:closed|reset) by", cut_off),
)


def scan_keys(target: Target) -> list[bytes]:
    """The keys a host shows to anybody; none when it cannot be asked."""
    scan = shutil.which("ssh-keyscan")
    if scan is None:
        return []
    argv = [scan, "-T", "5", "-p", str(target.port), "--", target.host]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return []
    keys = []
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) == 3:
            try:
                keys.append(base64.b64decode(words[2], validate=True))
            except binascii.Error:
                continue
    return keys


def agent_keys() -> list[str]:
    """What an agent has, as `ssh-add -l` prints it."""
    program = shutil.which("ssh-add")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, "-l"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return []
    return (
        [f"{line} of your agent" for line in done.stdout.splitlines()]
        if done.returncode == 0
        else []
    )


def why_refused(number: int | None, text: str) -> str:
    """Words of a system that takes no more, with what to do about a full disk."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{text}: make room, or take another folder; what has arrived stays, and the next try "
            "goes on from there"
        )
    return text
