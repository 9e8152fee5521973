"""What a bed is made of: sizes, names, addresses, ports, folders, and the texts of its conf files.

Everything is derived from `BedConfig.index`, so beds of different index share nothing and run side
by side. All files lie in one work folder; nothing is written to the machine's /etc, /run or /var.
"""

import socket
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.bed.versions import SlurmBuild

# Slurm's own ports are 6817-6819 and 3306: keep away from a cluster that this machine belongs to.
FIRST_PORT = 26817
PORTS_PER_BED = 10
MAX_BEDS = 10


@dataclass(frozen=True)
class BedConfig:
    """One bed. Two beds can run at once when their `index` differs."""

    index: int = 0
    """0..9: chooses the work folder, ports, namespace names and the range 10.(77+index).0.0/24."""
    accounting: bool = True
    """Run MariaDB and slurmdbd; without them sacct says that accounting is disabled."""
    num_nodes: int = 4
    cpus_per_node: int = 8
    mem_mb_per_node: int = 8000
    gpus_per_node: int = 8
    """At most 10: they are /dev/tty0, /dev/tty1, .. as far as Slurm is concerned."""
    slurmd_timeout_s: int = 15
    """Slurm's default is 300. A silent node is declared down after about twice this time."""
    kill_wait_s: int = 10
    """From SIGTERM to SIGKILL; Slurm's default is 30."""
    requeue_delay_s: int = 11
    """Pause before a requeued job may start again, at least 6; Slurm's default is 121."""
    min_job_age_s: int = 300
    """How long squeue and scontrol know an ended job (Slurm's default); see `purge_job`."""
    node_local: tuple[str, ...] = ("/dev/shm",)
    """Folders that each node has for itself, as an empty tmpfs. All else is shared, as by NFS."""
    slurm: SlurmBuild | None = None
    """Another version than the machine's own; see `versions.build_of`."""
    work_root: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))

    def __post_init__(self) -> None:
        """Refuse what would give two beds the same port or an address outside the range."""
        if not 0 <= self.index < MAX_BEDS:
            raise ValueError(f"index {self.index}: a bed's index is 0 to {MAX_BEDS - 1}")
        if not 2 <= self.num_nodes <= 9 or not 1 <= self.gpus_per_node <= 10:
            raise ValueError("a bed has 2 to 9 nodes with 1 to 10 GPUs each")
        # Slurm takes cred_expire below 5 for an error, and falls back to 120 without a word.
        if self.requeue_delay_s < 6:
            raise ValueError(f"requeue_delay_s {self.requeue_delay_s}: Slurm can do 6 s at least")

    @property
    def name(self) -> str:
        """Prefix of interface and namespace names (an interface name has at most 15 letters)."""
        return f"clmbed{self.index}"

    @property
    def work(self) -> Path:
        """The one folder of this bed; gone after `stop`."""
        return self.work_root / f"clusterlm-bed-{self.index}"

    @property
    def nodes(self) -> list[str]:
        """node1, node2, ..; also their host names."""
        return [f"node{number}" for number in range(1, self.num_nodes + 1)]

    @property
    def controller_address(self) -> str:
        """Where slurmctld and slurmdbd listen: the machine itself, seen from the nodes."""
        return f"10.{77 + self.index}.0.254"

    def address(self, node: str) -> str:
        """node3 -> 10.77.0.3."""
        return f"10.{77 + self.index}.0.{self.nodes.index(node) + 1}"

    @cached_property
    def controller_host(self) -> str:
        """Slurmctld refuses to run on a host that SlurmctldHost does not name (short name)."""
        return socket.gethostname().split(".")[0]

    @property
    def slurmctld_port(self) -> int:
        """Of the machine: differs per bed."""
        return FIRST_PORT + self.index * PORTS_PER_BED

    @property
    def slurmd_port(self) -> int:
        """The same on every node, each has its own address."""
        return self.slurmctld_port + 1

    @property
    def slurmdbd_port(self) -> int:
        """Of the machine: differs per bed."""
        return self.slurmctld_port + 2

    @property
    def conf(self) -> Path:
        """Folder of slurm.conf and its siblings; the nodes also see it as /etc/slurm."""
        return self.work / "conf"

    @property
    def slurm_conf(self) -> Path:
        """What clients need in SLURM_CONF."""
        return self.conf / "slurm.conf"

    @property
    def node_etc(self) -> Path:
        """Files that the nodes see in /etc in place of the machine's."""
        return self.work / "node-etc"

    @property
    def munge_socket(self) -> Path:
        """Open to every user of the machine, as munge demands: it only says who is calling."""
        return self.work / "munge" / "socket"

    @property
    def mariadb_socket(self) -> Path:
        """In a folder for root alone: the database's root user has no password."""
        return self.work / "mariadb" / "socket"


def conf_texts(config: BedConfig) -> dict[Path, str]:
    """Every text file of the bed, by its path."""
    texts = {
        config.slurm_conf: _slurm_conf(config),
        config.conf / "gres.conf": _gres_conf(config),
        config.conf / "cgroup.conf": _cgroup_conf(config),
        config.node_etc / "hosts": _hosts(config),
        # Nodes reach no name server, and slurmd 24.11 waits 10 s for one.
        config.node_etc / "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    if config.accounting:
        texts[config.conf / "slurmdbd.conf"] = _slurmdbd_conf(config)
    return texts


def _cgroup_conf(config: BedConfig) -> str:
    # Named, or slurmd would look which one this machine has, and fail if it finds none.
    if config.slurm is None:
        return "CgroupPlugin=cgroup/v1\n"
    # 20.11 does not know the word
    return "" if config.slurm.version == "20.11" else "CgroupPlugin=disabled\n"


def _plugin_line(config: BedConfig) -> str:
    return f"PluginDir={config.slurm.plugins}" if config.slurm else "# plugins: where it looks"


def _slurm_conf(config: BedConfig) -> str:
    nodes = f"node[1-{config.num_nodes}]"
    node_lines = "\n".join(
        f"NodeName={node} NodeAddr={config.address(node)} CPUs={config.cpus_per_node} Sockets=1 "
        f"CoresPerSocket={config.cpus_per_node} ThreadsPerCore=1 "
        f"RealMemory={config.mem_mb_per_node} Gres=gpu:{config.gpus_per_node}"
        for node in config.nodes
    )
    return f"""\
ClusterName={config.name}
{_plugin_line(config)}
SlurmctldHost={config.controller_host}({config.controller_address})
SlurmctldPort={config.slurmctld_port}
SlurmdPort={config.slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire is also what a requeued job waits for, plus one second.
AuthInfo=socket={config.munge_socket},cred_expire={config.requeue_delay_s - 1}
StateSaveLocation={config.work}/state
SlurmdSpoolDir={config.work}/spool/%n
SlurmctldPidFile={config.work}/state/slurmctld.pid
SlurmdPidFile={config.work}/spool/%n.pid
SlurmctldLogFile={config.work}/log/slurmctld.log
SlurmdLogFile={config.work}/log/%n.log
# No cgroups are used: the same bed on cgroup v1, v2 and in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Nodes have more CPUs than this machine; without it they go INVAL.
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout={config.slurmd_timeout_s}
KillWait={config.kill_wait_s}
MinJobAge={config.min_job_age_s}
JobRequeue=1
MpiDefault=none
SchedulerType=sched/backfill
# As often as Slurm can: a batch job waits 0.5 s for its start, not up to 3.
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
{_accounting_lines(config)}
{node_lines}
PartitionName=batch Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=node[1-2] MaxTime=10 State=UP
PartitionName=tiny Nodes=node1 MaxNodes=1 MaxTime=1 State=UP
"""


def _accounting_lines(config: BedConfig) -> str:
    if not config.accounting:
        return "AccountingStorageType=accounting_storage/none"
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={config.controller_address}
AccountingStoragePort={config.slurmdbd_port}
# The way to slurmdbd has its own setting for munge's socket, under this name.
AccountingStoragePass={config.munge_socket}
AccountingStorageTRES=gres/gpu"""


def _gres_conf(config: BedConfig) -> str:
    # Any device file will do for scheduling; the number at its end becomes CUDA_VISIBLE_DEVICES.
    last_gpu = config.gpus_per_node - 1
    return f"NodeName=node[1-{config.num_nodes}] Name=gpu File=/dev/tty[0-{last_gpu}]\n"


def _slurmdbd_conf(config: BedConfig) -> str:
    # StorageHost=localhost means the socket, and that one comes by MYSQL_UNIX_PORT (`slurm.py`).
    return f"""\
{_plugin_line(config)}
DbdHost={config.controller_host}
DbdAddr={config.controller_address}
DbdPort={config.slurmdbd_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={config.munge_socket}
PidFile={config.work}/state/slurmdbd.pid
LogFile={config.work}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
"""


def _hosts(config: BedConfig) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    lines += [f"{config.address(node)} {node}" for node in config.nodes]
    return "\n".join([*lines, f"{config.controller_address} {config.controller_host}\n"])
