"""Answers of Slurm -> facts. Pure, and tolerant: 20.11 to 26.05 leave out, add and rename fields.

No field is required to be there, and a word that is not known is kept as it is.
"""

from __future__ import annotations

import re
from typing import Any

from clusterlm.cluster.doctor.commands import Answers
from clusterlm.cluster.doctor.words_of_slurm import (
    duration_s,
    is_on,
    number,
    records,
    rows,
    settings,
    word,
    words,
)
from clusterlm.spec.probe import ProbedPartition, ProbedQos

_UNUSABLE = re.compile(r"down|drain|fail|error|maint|future|unknown|reboot", re.IGNORECASE)
_COUNT = re.compile(r":\d+[KMGTP]?$")


def facts_of(answers: Answers) -> dict[str, Any]:
    """Fields of a Probe, as far as the login node can tell."""
    config = settings(answers.text("config"))
    parts = partitions_of(answers.text("partitions"), answers.text("nodes"))
    return {
        "slurm_version": version_of(answers.text("version"), config),
        "cluster_name": word(config.get("ClusterName")),
        "programs": dict(answers.programs),
        "accounting": has_accounting(answers),
        "partitions": parts,
        "gres_names": tuple(sorted({name_of_gres(g) for part in parts for g in part.gres})),
        "pyxis": "--container-image" in answers.text("srun") if answers.text("srun") else None,
        **accounts_of(answers),
        **policy_of(config),
    }


def version_of(text: str, config: dict[str, str]) -> str | None:
    """`slurm-wlm 22.05.8` and `slurm 24.11.5` give the number."""
    match = re.search(r"\d+\.\d+[\w.-]*", text)
    return match[0] if match else word(config.get("SLURM_VERSION"))


def policy_of(config: dict[str, str]) -> dict[str, Any]:
    """What happens to jobs here: preemption, limits, requeue."""
    enforced = (word(config.get("AccountingStorageEnforce")) or "").lower()
    limits = (word(config.get("EnforcePartLimits")) or "NO").upper() if config else None
    return {
        "preempt_mode": word(config.get("PreemptMode")),
        "preempt_type": word((config.get("PreemptType") or "").removeprefix("preempt/")),
        "preempt_parameters": word(config.get("PreemptParameters")),
        "kill_wait_s": duration_s(config.get("KillWait")),
        "requeue": is_on(config.get("JobRequeue")),
        "max_array_size": number(config.get("MaxArraySize")),
        "min_job_age_s": duration_s(config.get("MinJobAge")),
        "enforces_limits": None if limits is None else limits != "NO",
        "enforces_accounts": bool(re.search("assoc|limits|qos|all", enforced)) if config else None,
        "hides_jobs": "jobs" in words((config.get("PrivateData") or "").lower()),
    }


def has_accounting(answers: Answers) -> bool | None:
    """Whether sacct answers. Not AccountingStorageType: 24.11 writes `(null)` for none."""
    if "accounting" in answers.texts:
        return True
    said = answers.refusals.get("accounting", "")
    return False if "disabled" in said or not answers.programs.get("sacct") else None


def accounts_of(answers: Answers) -> dict[str, Any]:
    """What the user may charge, and the qualities of service."""
    found = rows(answers.text("associations"), 5)
    known = tuple(
        ProbedQos(
            name=name,
            # `cluster` is what the cluster's PreemptMode says
            preempt_mode=None if mode.lower() == "cluster" else word(mode),
            grace_s=duration_s(grace),
            max_time_s=duration_s(limit),
            preempts=words(preempts),
        )
        for name, mode, grace, limit, preempts in rows(answers.text("qos"), 5)
        if word(name)
    )
    return {
        "accounts": _each_once(row[0] for row in found),
        "qos": _each_once(name for row in found for name in row[2].split(",")),
        "default_account": word(answers.text("user").strip().partition("\n")[0]),
        "qos_limits": known,
    }


def _each_once(names: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if word(name)))


def partitions_of(shown: str, nodes: str) -> tuple[ProbedPartition, ...]:
    """Partitions of `scontrol -o show partition`, with what sinfo knows of their nodes.

    Either text alone will do: some sites keep one of the two commands from users.
    """
    by_name = {record["PartitionName"]: record for record in records(shown, "PartitionName")}
    kinds: dict[str, list[list[str]]] = {}
    for row in rows(nodes, 9):
        kinds.setdefault(row[0].rstrip("*"), []).append(row)
    return tuple(
        _partition(name, by_name.get(name, {}), kinds.get(name, []))
        for name in dict.fromkeys((*by_name, *kinds))
    )


def _partition(name: str, shown: dict[str, str], kinds: list[list[str]]) -> ProbedPartition:
    first = kinds[0] if kinds else [""] * 9
    usable = [row for row in kinds if not _UNUSABLE.search(row[7])]
    counted = sum(number(row[4]) or 0 for row in kinds)
    up = sum(number(row[4]) or 0 for row in usable)
    allowed = words(shown.get("AllowAccounts"))
    return ProbedPartition(
        name=name,
        nodes=counted or number(shown.get("TotalNodes")) or 0,
        nodes_up=up if kinds else None,
        max_nodes=number(shown.get("MaxNodes")),
        priority_tier=number(shown.get("PriorityTier")),
        max_time_s=duration_s(shown.get("MaxTime", first[2]), bare=60),
        default_time_s=duration_s(shown.get("DefaultTime", first[3]), bare=60),
        preempt_mode=word(shown.get("PreemptMode")),
        grace_s=duration_s(shown.get("GraceTime")),
        gres=_each_once(gres for row in kinds for gres in gres_list(row[8])),
        is_default=is_on(shown.get("Default")) or any(row[0].endswith("*") for row in kinds),
        state=(word(shown.get("State")) or word(first[1]) or "UP").upper(),
        mem_mb=min((n for row in kinds if (n := number(row[6]))), default=None),
        cpus=min((n for row in kinds if (n := number(row[5]))), default=None),
        accounts=() if "ALL" in allowed else allowed,
    )


def gres_list(text: str) -> list[str]:
    """`gpu:a100:8(S:0-1),nvme:2` -> `gpu:a100:8`, `nvme:2`: where they sit is left out."""
    return list(words(re.sub(r"\([^)]*\)", "", text))) if word(text) else []


def name_of_gres(gres: str) -> str:
    """`gpu:a100:8` -> `gpu:a100`."""
    return _COUNT.sub("", gres)
