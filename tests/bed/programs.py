"""How each program of the bed is started, and how one sees that it serves."""

import os
import socket
import stat
import subprocess
from pathlib import Path

from tests.bed.config import BedConfig, conf_texts
from tests.bed.daemons import Daemon
from tests.bed.network import NETNS, namespace
from tests.bed.waiting import BedError

# A node's own view of the machine, made before slurmd takes over the process:
#   /etc            the machine's below, the bed's hosts and nsswitch.conf on top, read only (a bind
#                   mount of the one file would be lost when someone renames /etc/hosts)
#   /etc/slurm      the bed's, so that jobs submitted with --export=NONE find their cluster
#   /sys/fs/cgroup  empty: slurmd then takes it for v1 without controllers, on every machine
#   $stepd          of another version, its slurmstepd: `-d PATH`
#   "$@"            folders that this node shares with no other
NODE_SCRIPT = """
set -eu
node=$1 etc=$2 conf=$3 stepd=$4
shift 4
hostname "$node"
mount -t overlay -o "ro,lowerdir=$etc:/etc" overlay /etc
mount --bind "$conf" /etc/slurm
mount -t tmpfs tmpfs /sys/fs/cgroup
for folder; do
    mount -t tmpfs tmpfs "$folder"
done
exec slurmd -D -N "$node" $stepd
"""
# slurmctld and slurmdbd live in sbin, which the PATH of a plain user lacks.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def client_env(config: BedConfig) -> dict[str, str]:
    """The environment for sbatch and its like, free of an outer Slurm job's variables."""
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SLURM", "SBATCH_", "SQUEUE_", "SACCT_", "SINFO_", "SALLOC_"))
    }
    env["PATH"] = f"{env['PATH']}:{SYSTEM_PATH}" if env.get("PATH") else SYSTEM_PATH
    if config.slurm:
        env["PATH"] = f"{config.slurm.programs}:{env['PATH']}"
    env["SLURM_CONF"] = str(config.slurm_conf)
    return env


def refuse_foreign_folder(config: BedConfig) -> None:
    """The name is easy to guess, and pids on file there are killed by root: it must be root's own.

    Raises:
        BedError: a link, or something of another user, is in the place of the work folder.
    """
    if not os.path.lexists(config.work):
        return
    found = config.work.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0:
        raise BedError(f"{config.work} is not root's own folder: remove it")


def lay_folders(config: BedConfig) -> None:
    """Make the work folder with all conf files in it.

    Others may pass through it (munge and non-root jobs need that) but not list it.
    """
    config.work.mkdir(mode=0o711)
    # munged demands a socket folder that everybody may enter
    for name, mode in {"munge": 0o711, "conf": 0o755, "node-etc": 0o755, "spool": 0o755}.items():
        (config.work / name).mkdir(mode=mode)
    for name in ("state", "log", "pids", "mariadb"):
        (config.work / name).mkdir(mode=0o700)
    (config.node_etc / "slurm").mkdir()
    for node in config.nodes:
        (config.work / "spool" / node).mkdir()
    for path, text in conf_texts(config).items():
        # slurmdbd refuses a conf file that others can read
        path.touch(mode=0o600 if path.name == "slurmdbd.conf" else 0o644)
        path.write_text(text)
    key = config.munge_socket.parent / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))


def munged(config: BedConfig) -> Daemon:
    """Authentication with a key of this bed; all nodes use the one socket."""
    folder = config.munge_socket.parent
    files = {"socket": "socket", "key-file": "key", "seed-file": "seed", "pid-file": "pid"}
    options = [f"--{option}={folder / name}" for option, name in files.items()]
    argv = [
        "munged",
        "--foreground",
        "--num-threads=10",
        f"--log-file={config.work}/log/munged.log",
        *options,
    ]
    return Daemon("munged", argv, work=config.work, env=client_env(config))


def mariadbd(config: BedConfig) -> Daemon:
    """A database that need not survive a power cut: it is made for one test session."""
    argv = ["mariadbd", *_mariadb_options(config), "--skip-networking"]
    argv += [f"--socket={config.mariadb_socket}", f"--pid-file={config.work}/state/mariadbd.pid"]
    argv += ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]
    return Daemon("mariadbd", argv, work=config.work, env=client_env(config))


def install_database(config: BedConfig) -> None:
    """Make the system tables (1 s), with a root user that needs no password."""
    argv = ["mariadb-install-db", *_mariadb_options(config), "--skip-test-db"]
    argv += ["--auth-root-authentication-method=normal"]
    done = subprocess.run(argv, capture_output=True, text=True, env=client_env(config))
    if done.returncode:
        raise BedError(f"mariadb-install-db: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def slurmdbd(config: BedConfig) -> Daemon:
    """Accounting. It has no setting for the database's socket, but the client library does."""
    env = client_env(config) | {"MYSQL_UNIX_PORT": str(config.mariadb_socket)}
    return Daemon("slurmdbd", ["slurmdbd", "-D"], work=config.work, env=env)


def slurmctld(config: BedConfig) -> Daemon:
    """The controller; without `-c` it takes up the state that an earlier one saved."""
    return Daemon("slurmctld", ["slurmctld", "-D"], work=config.work, env=client_env(config))


def slurmd(config: BedConfig, node: str) -> Daemon:
    """One node. Each program replaces the one before, so the pid is slurmd's in the end."""
    argv = ["nsenter", f"--net={NETNS / namespace(config, node)}"]
    # Not `ip netns exec`: that mounts a fresh /sys without /sys/fs/cgroup, and slurmd gives up.
    argv += ["unshare", "--mount", "--uts", "--propagation", "private"]
    argv += ["bash", "-c", NODE_SCRIPT, "bash", node]
    stepd = f"-d {config.slurm.programs / 'slurmstepd'}" if config.slurm else ""
    argv += [str(config.node_etc), str(config.conf), stepd, *config.node_local]
    return Daemon(node, argv, work=config.work, env=client_env(config))


def listens(address: str, port: int) -> bool:
    """Whether a TCP connection is taken."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def takes_connections(path: Path) -> bool:
    """Whether a unix socket is served."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _mariadb_options(config: BedConfig) -> list[str]:
    return [
        "--no-defaults",
        "--user=root",
        f"--datadir={config.work}/mariadb/data",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=16M",
    ]
