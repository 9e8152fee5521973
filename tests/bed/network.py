"""The nodes' network: one namespace per node, all on a bridge, the machine on it as well.

    machine            clmbed0-switch        clmbed0-node1
    clmbed0 ---veth--- uplink                eth0 10.77.0.1
    10.77.0.254          |                     |
                       bridge ----- node1 ---veth
                         |--------- node2 .. node4

The bridge has a namespace of its own: with Docker on the machine, br_netfilter would pass the
nodes' packets through the machine's FORWARD rules, which drop them. On the machine itself the bed
is one interface, `clmbed0`.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bed.config import BedConfig
from tests.bed.waiting import BedError, wait_until

NETNS = Path("/run/netns")


def namespace(config: BedConfig, node: str) -> str:
    """Name of the node's network namespace; the bridge's is that of the "node" `switch`."""
    return f"{config.name}-{node}"


def lay_network(config: BedConfig) -> None:
    """Make the bridge, its link to the machine, and all nodes.

    Raises:
        BedError: the address range is in use on this machine.
    """
    _refuse_taken_range(config)
    switch = namespace(config, "switch")
    _ip("netns", "add", switch)
    _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
    _ip("-n", switch, "link", "set", "bridge", "up")
    _ip("link", "add", config.name, "type", "veth", "peer", "name", "uplink", "netns", switch)
    _ip("-n", switch, "link", "set", "uplink", "master", "bridge", "up")
    _ip("addr", "add", f"{config.controller_address}/24", "dev", config.name)
    _ip("link", "set", config.name, "up")
    for node in config.nodes:
        _lay_node(config, node)


def remove_network(config: BedConfig) -> None:
    """End everything that runs on a node and take the namespaces away; fine if there are none."""
    if (Path("/sys/class/net") / config.name).exists():
        # The far ends of veth pairs go late when a namespace dies; this one must be gone at once.
        _ip("link", "del", config.name)
    for path in sorted(NETNS.glob(f"{config.name}-*")):
        kill_processes_in(path.name)
        _ip("netns", "del", path.name)


def set_link(config: BedConfig, node: str, state: str) -> None:
    """`state` is "up" or "down". The address survives both."""
    _ip("-n", namespace(config, node), "link", "set", "eth0", state)


def processes_in(namespace_name: str) -> Iterator[tuple[int, str]]:
    """Pid and command line (joined by blanks) of each process of the namespace, no zombies."""
    try:
        wanted = os.stat(NETNS / namespace_name).st_ino
    except FileNotFoundError:
        return
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.stat(entry / "ns/net").st_ino != wanted:
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        yield int(entry.name), b" ".join(words).decode(errors="replace").strip()


def kill_processes_in(namespace_name: str, *, spare: str = r"(?!)", timeout_s: float = 10) -> None:
    """SIGKILL until the namespace is empty, but for commands that match `spare` (a regex)."""

    def is_empty() -> bool:
        pids = [pid for pid, line in processes_in(namespace_name) if not re.search(spare, line)]
        for pid in pids:
            send(pid, signal.SIGKILL)
        return not pids

    wait_until(is_empty, timeout_s=timeout_s, what=f"all processes of {namespace_name} ended")


def send(pid: int, signum: int) -> None:
    """`os.kill` for a process that may have ended already."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def _lay_node(config: BedConfig, node: str) -> None:
    name, switch = namespace(config, node), namespace(config, "switch")
    _ip("netns", "add", name)
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", node, "netns", switch)
    _ip("-n", switch, "link", "set", node, "master", "bridge", "up")
    _ip("-n", name, "addr", "add", f"{config.address(node)}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")


def _refuse_taken_range(config: BedConfig) -> None:
    network = f"{config.controller_address.rsplit('.', 1)[0]}.0/24"
    taken = _ip("-o", "addr", "show", "to", network)
    if taken:
        raise BedError(f"{network} is in use here ({taken.split()[1]}): take another bed index")


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise BedError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
