"""Why a job waits: Slurm's reasons in words, and what to do where something can be done.

Names of reasons come from Slurm's `job_state_reason` (20.11 to 25.05). Limits come in families,
`QOSMaxGRESPerUser`, `AssocGrpCPUMinutesLimit`, so their names are read part by part.
"""

from __future__ import annotations

import re

_DOWN = "nodes that it could use are down, drained or reserved; which and why: sinfo -R"
_HELD = "held after it could not be started too often; release it with: scontrol release ID"

REASONS = {
    "Priority": "jobs with a higher priority wait before it",
    "Resources": "waiting for nodes to become free",
    "Dependency": "waiting for the data phase",
    "DependencyNeverSatisfied": "the data phase failed",
    "BeginTime": "held back until its begin time; after a requeue that is about two minutes",
    "Cleaning": "its last run is still being cleared up",
    "None": "the scheduler has not looked at it yet",
    "PartitionTimeLimit": "it asks for more time than the partition allows; "
    "what it allows: sinfo -o '%P %l'",
    "PartitionNodeLimit": "it asks for more or fewer nodes than the partition allows",
    "PartitionConfig": "it asks for more than the partition has",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs at the moment",
    "ReqNodeNotAvail": "a node it needs is not available (down, drained or reserved for "
    "maintenance); which: sinfo -R, scontrol show reservation",
    "Nodes": _DOWN,
    "NodeDown": _DOWN,
    "NodesDown": _DOWN,
    "BadConstraints": "no node has what `resources.constraint` asks for; "
    "what nodes have: sinfo -o '%N %f'",
    "Constraints": "no free node has what `resources.constraint` asks for",
    "FrontEndDown": "the front-end node is down",
    "JobHeldUser": "held; release it with: scontrol release ID",
    "JobHeldAdmin": "held by an administrator; ask the site why",
    "JobHoldMaxRequeue": _HELD,
    "JobLaunchFailure": "it could not be started, perhaps for a full disk or a missing folder",
    "launch": _HELD,
    "Licenses": "waiting for a licence",
    "BurstBufferResources": "waiting for room in the burst buffer",
    "BurstBufferStageIn": "its files are being copied in",
    "Reservation": "waiting for its reservation to begin",
    "ReservationDeleted": "its reservation was deleted; submit it without `resources.reservation`",
    "InvalidAccount": "the account is not known or may not be used; "
    "yours: sacctmgr show assoc user=$USER format=account,partition,qos",
    "AccountNotAllowed": "the partition does not take this account",
    "InvalidQOS": "the QOS is not known; yours: sacctmgr show assoc user=$USER format=qos",
    "QOSNotAllowed": "the account or the partition does not take this QOS",
    "QOSTimeLimit": "it asks for more time than the QOS allows",
    "QOSResourceLimit": "it asks for more than the QOS allows",
    "QOSJobLimit": "the QOS has as many jobs as it may have",
    "QOSUsageThreshold": "the usage of the QOS is above its threshold",
    "QOSMaxJobsPerUserLimit": "the limit of running jobs per user is reached",
    "AssociationTimeLimit": "it asks for more time than the account allows",
    "AssociationResourceLimit": "it asks for more than the account allows",
    "AssociationJobLimit": "the account has as many jobs as it may have",
    "JobArrayTaskLimit": "as many tasks of the array run as may run at once",
    "MaxRequeue": _HELD,
    "MaxMemPerLimit": "it asks for more memory per node or CPU than is allowed",
    "DeadLine": "it cannot end before its deadline",
    "Prolog": "the site's prolog is running on its nodes",
    "SystemFailure": "a failure of the system; ask the site",
    "NonZeroExitCode": "its last run failed",
}
_LIMIT = re.compile(
    r"(?P<whose>QOS|Assoc)(?P<scope>Grp|Max|Min)"
    r"(?P<what>CPU|Cpu|GRES|Gres|MemLimit|Memory|Mem|Node|Jobs?|SubmitJobs?|WallDuration|Wall|"
    r"Billing|Energy|BB|License|Time)"
    r"(?P<rest>[A-Za-z]*)"
)
_WHAT = {
    "cpu": "CPUs",
    "gres": "GPUs",
    "memlimit": "memory",
    "memory": "memory",
    "mem": "memory",
    "node": "nodes",
    "job": "running jobs",
    "jobs": "running jobs",
    "submitjob": "submitted jobs",
    "submitjobs": "submitted jobs",
    "wallduration": "run time",
    "wall": "run time",
    "time": "run time",
    "billing": "billed units",
    "energy": "energy",
    "bb": "burst buffer",
    "license": "licences",
}


def reason_in_words(reason: str) -> str:
    """Why a job waits; a reason that is not known is given as Slurm wrote it."""
    if reason in ("", "None", "(null)"):
        return ""
    first = re.split(r"[,(:\s]", reason, maxsplit=1)[0]
    return REASONS.get(first) or _limit_in_words(first) or reason


def _limit_in_words(reason: str) -> str:
    """`QOSMaxGRESPerUser`: the limit of GPUs per user of the QOS is reached."""
    match = _LIMIT.fullmatch(reason)
    if match is None:
        return ""
    whose = "QOS" if match["whose"] == "QOS" else "account"
    what, rest = _WHAT[match["what"].lower()], match["rest"]
    if "Minutes" in rest:
        what += " x minutes"
    per = next((p for p in ("User", "Account", "Job", "Node") if f"Per{p}" in rest), "")
    of = f" per {per.lower()}" if per else " together" if match["scope"] == "Grp" else ""
    if match["scope"] == "Min":
        return f"it asks for fewer {what}{of} than the {whose} demands"
    if per == "Job":
        return f"it asks for more {what} than the {whose} allows one job"
    return f"the limit of {what}{of} of the {whose} is reached; it starts when some are free"
