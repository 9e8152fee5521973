"""A Slurm cluster on this machine, with faults at will.

    with SlurmBed(BedConfig(index=1)) as bed:
        job_id = bed.run(["sbatch", "--parsable", "-N2", "train.sh"]).stdout.strip()
        bed.link_down("node2")

It decides nothing: it is a real slurmctld with real slurmd (and munge, slurmdbd, MariaDB), each a
process whose pid is on file. Nodes are network + mount + host name namespaces; the file system is
the machine's own and so shared at the same paths.
"""

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType

from tests.bed import programs
from tests.bed.cluster import Cluster
from tests.bed.config import BedConfig
from tests.bed.daemons import kill_recorded, stop_daemons
from tests.bed.idle import wait_idle
from tests.bed.network import (
    kill_processes_in,
    lay_network,
    namespace,
    processes_in,
    remove_network,
    send,
    set_link,
)
from tests.bed.requirements import find_lack
from tests.bed.waiting import BedError, wait_until

REVOKED_S = 2.0


class BedInUse(BedError):
    """Another process, or `python -m tests.bed up`, has the bed of this index."""


class SlurmBed(Cluster):
    """One cluster; nothing happens before `start`."""

    def __init__(self, config: BedConfig | None = None) -> None:
        """A bed that another process left up is recognised by its pid files."""
        super().__init__(config or BedConfig())
        self.munged = programs.munged(self.config)
        self.mariadbd = programs.mariadbd(self.config)
        self.slurmctld = programs.slurmctld(self.config)
        self.slurmdbd = programs.slurmdbd(self.config)
        self.slurmd = {node: programs.slurmd(self.config, node) for node in self.config.nodes}
        self._claim: socket.socket | None = None

    # ---- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring everything up, after clearing what a killed run left.

        Raises:
            BedInUse: see there.
            BedError: the machine cannot, or a daemon did not come up (with the end of its log).
        """
        if lack := find_lack():
            raise BedError(lack)
        self.clear_remains()
        try:
            programs.lay_folders(self.config)
            lay_network(self.config)
            self._start_daemons()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all daemons and jobs, take the network and the work folder away."""
        # One after the other: slurmctld spends 5 s on nodes that go away before it does.
        # None is given long, for what they would save is deleted.
        stop_daemons([self.slurmctld], grace_s=2)
        stop_daemons([*self.slurmd.values(), self.slurmdbd], grace_s=2)
        stop_daemons([self.mariadbd, self.munged], grace_s=2)
        self._wipe()
        self.release()

    def clear_remains(self) -> None:
        """Claim the bed and remove what a killed process left of it.

        Raises:
            BedInUse: it is alive and not ours.
        """
        self.claim()
        if self.is_kept:
            self.release()
            raise BedInUse(f"bed {self.config.index} is up: python -m tests.bed down")
        self._wipe()

    def claim(self) -> None:
        """Make this process the only one that may start, stop or clear the bed.

        Raises:
            BedInUse: another one holds the claim.
            BedError: the work folder was laid by somebody else.
        """
        programs.refuse_foreign_folder(self.config)
        # An abstract socket: the kernel frees it however this process ends, and no child has it.
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0clusterlm-bed-{self.config.index}")
        except OSError as error:
            claim.close()
            raise BedInUse(f"bed {self.config.index} is in use by another process") from error
        self._claim = claim

    def release(self) -> None:
        """Give the claim back; the bed, if up, stays up."""
        if self._claim:
            self._claim.close()
            self._claim = None

    def keep(self) -> None:
        """Let the bed outlive this process, and let no other one take it for a left-over."""
        (self.config.work / "kept").touch()
        self.release()

    @property
    def is_kept(self) -> bool:
        """Up since `python -m tests.bed up`."""
        return (self.config.work / "kept").exists() and self.slurmctld.is_alive()

    def __enter__(self) -> "SlurmBed":
        """`start`."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """`stop`."""
        self.stop()

    # ---- faults ----------------------------------------------------------------------------

    def link_down(self, node: str) -> None:
        """Cut the node's cable. Its processes run on and still write to the shared folder."""
        set_link(self.config, node, "down")

    def link_up(self, node: str) -> None:
        """Plug it in again."""
        set_link(self.config, node, "up")

    def kill_node_processes(
        self, node: str, pattern: str, signum: int = signal.SIGKILL
    ) -> list[int]:
        """Signal the node's processes whose command line holds `pattern` (a regex), never slurmd.

        Returns:
            Their pids; empty if nothing matched.
        """
        own = self.slurmd[node].pid
        pids = [
            pid
            for pid, line in processes_in(namespace(self.config, node))
            if pid != own and re.search(pattern, line)
        ]
        for pid in pids:
            send(pid, signum)
        return pids

    def drain(self, node: str) -> None:
        """Let its jobs end and start no more there."""
        argv = ["scontrol", "update", f"nodename={node}", "state=drain", "reason=test"]
        self.run(argv, check=True)

    def resume(self, node: str) -> None:
        """End a drain, or take a node back that is down."""
        self.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=True)

    def freeze_controller(self) -> None:
        """SIGSTOP slurmctld: clients connect and hear nothing."""
        self.slurmctld.freeze()

    def thaw_controller(self) -> None:
        """SIGCONT slurmctld."""
        self.slurmctld.thaw()

    def stop_controller(self) -> None:
        """End slurmctld; jobs run on, clients are refused."""
        self.slurmctld.stop()

    def start_controller(self) -> None:
        """Start slurmctld with the state that it saved; returns when it answers."""
        self.slurmctld.start()
        self.slurmctld.wait_until_up(lambda: not self.run(["scontrol", "ping"]).returncode)

    def freeze_dbd(self) -> None:
        """SIGSTOP slurmdbd: sacct hangs."""
        self.slurmdbd.freeze()

    def thaw_dbd(self) -> None:
        """SIGCONT slurmdbd."""
        self.slurmdbd.thaw()

    def stop_dbd(self) -> None:
        """End slurmdbd: sacct fails at once, all else goes on."""
        self.slurmdbd.stop()

    def start_dbd(self) -> None:
        """Start slurmdbd; returns when its port is open."""
        at = self.config.controller_address, self.config.slurmdbd_port
        self.slurmdbd.start()
        self.slurmdbd.wait_until_up(lambda: programs.listens(*at))

    def run_on(
        self, node: str, argv: Sequence[str], *, timeout: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program in the node's namespaces, outside of any job."""
        enter = ["nsenter", "--target", str(self.slurmd[node].pid), "--net", "--mount", "--uts"]
        return self.run([*enter, *argv], timeout=timeout)

    def restart_node(self, node: str) -> None:
        """What a reboot is to Slurm: everything on the node dies, then slurmd registers anew."""
        kill_processes_in(namespace(self.config, node))
        self.slurmd[node].start()

    # ---- shortcuts -------------------------------------------------------------------------

    def release_requeued(self, job_id: str | int) -> None:
        """Spare a requeued job the rest of its pause (`requeue_delay_s`)."""
        self.wait_for_state(job_id, "PENDING")
        # Slurmd refuses credentials made in the second of the requeue or before it, and then the
        # job fails: "already killed, do not launch batch job".
        time.sleep(REVOKED_S)
        self.run(["scontrol", "update", f"jobid={job_id}", "starttime=now"], check=True)

    def purge_job(self, job_id: str | int) -> None:
        """Let the controller forget an ended job, as it does after MinJobAge; sacct knows it on.

        It forgets all other ended jobs with it. Takes 6 to 10 s.
        """
        usual, brief = f"MinJobAge={self.config.min_job_age_s}\n", "MinJobAge=1\n"
        self._reconfigure(usual, brief)
        try:
            what = f"slurmctld has forgotten job {job_id}"
            wait_until(lambda: not self.job(job_id), timeout_s=30, what=what)
        finally:
            self._reconfigure(brief, usual)

    def wait_idle(self, timeout: float = 60) -> None:
        """Undo all faults, end all jobs, and wait until every node is idle."""
        wait_idle(self, timeout_s=timeout)

    # ---- private ---------------------------------------------------------------------------

    def _start_daemons(self) -> None:
        self.munged.start()
        self.munged.wait_until_up(lambda: programs.takes_connections(self.config.munge_socket))
        if self.config.accounting:
            self._start_accounting()
        self.start_controller()
        for slurmd in self.slurmd.values():
            slurmd.start()
        for slurmd in self.slurmd.values():
            slurmd.wait_until_up(self._all_idle)

    def _start_accounting(self) -> None:
        programs.install_database(self.config)
        self.mariadbd.start()
        self.mariadbd.wait_until_up(lambda: programs.takes_connections(self.config.mariadb_socket))
        # slurmctld refuses to start without it: "we have no TRES"
        self.start_dbd()

    def _all_idle(self) -> bool:
        return set(self.node_states().values()) == {"idle"}

    def _reconfigure(self, old: str, new: str) -> None:
        conf = self.config.slurm_conf
        conf.write_text(conf.read_text().replace(old, new))
        self.run(["scontrol", "reconfigure"], check=True)

    def _wipe(self) -> None:
        kill_recorded(self.config.work)
        remove_network(self.config)
        shutil.rmtree(self.config.work, ignore_errors=True)
