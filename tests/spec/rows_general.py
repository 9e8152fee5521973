"""Rows of test_rules: cluster, resources, environment."""

from __future__ import annotations

from tests.spec.conftest import Row

SLURM_4 = {"cluster": "slurm", "resources": {"nodes": 4, "gpus_per_node": 8, "spares": 1}}
ZERO = {"train.strategy": "deepspeed"}

GENERAL: list[Row] = [
    ("cluster_is_known", {"cluster": "slurm"}, {"cluster": "hpc"}, "cluster", "local, slurm"),
    ("local_is_one_node", SLURM_4, {"resources.nodes": 2}, "resources.nodes", "write 1"),
    ("local_is_one_node", {}, {"resources.spares": 1}, "resources.spares", "write 0"),
    (
        "min_nodes_can_be_kept",
        SLURM_4 | {"recovery.min_nodes": 3},
        SLURM_4 | {"recovery.min_nodes": 5},
        "recovery.min_nodes",
        "more than resources.nodes",
    ),
    (
        "min_nodes_can_be_kept",
        SLURM_4 | {"recovery.min_nodes": 2, "train.global_batch_size": 192} | ZERO,
        SLURM_4 | {"recovery.min_nodes": 2, "train.global_batch_size": 128} | ZERO,
        "recovery.min_nodes",
        "on 3 nodes train.global_batch_size 128 is no multiple of micro_batch_size 1 x ranks 24",
    ),
    (
        "gpus_serve_all_processes",
        {"resources": {"gpus_per_node": 2, "processes_per_node": 2}},
        {"resources": {"gpus_per_node": 2, "processes_per_node": 3}},
        "resources.processes_per_node",
        "at most 2",
    ),
    (
        "sbatch_extras_are_not_ours",
        {"resources.extra": ["--comment=x"]},
        {"resources.extra": ["--output=x"]},
        "resources.extra[0]",
        "run directory",
    ),
    (
        "stop_fits_into_the_time_limit",
        {"recovery.stop_grace": "59m"},
        {"recovery.stop_grace": "1h"},
        "recovery.stop_grace",
        "60 min",
    ),
    ("env_names_are_free", {"env": {"A": "1"}}, {"env": {"RANK": "1"}}, "env.RANK", "launcher"),
    ("env_names_are_free", {}, {"env": {"SLURM_X": "1"}}, "env.SLURM_X", "launcher"),
    ("env_names_are_free", {}, {"env": {"CLUSTERLM_X": "1"}}, "env.CLUSTERLM_X", "launcher"),
    (
        "env_holds_no_secret",
        {"env": {"TOKENIZERS_PARALLELISM": "true"}},
        {"env": {"HF_TOKEN": "x"}},
        "env.HF_TOKEN",
        "secrets: [HF_TOKEN]",
    ),
    ("env_holds_no_secret", {}, {"env": {"A": "hf_" + "x" * 20}}, "env.A", "looks like a secret"),
    (
        "env_holds_no_secret",
        {"env": {"HTTPS_PROXY": "http://proxy:3128"}},
        {"env": {"HTTPS_PROXY": "http://me:pw@proxy:3128"}},
        "env.HTTPS_PROXY",
        "looks like a secret",
    ),
    (
        "secrets_are_names",
        {"secrets": ["HF_TOKEN"]},
        {"secrets": ["a" * 40]},
        "secrets[0]",
        "only its variable's name",
    ),
    ("secrets_are_names", {}, {"secrets": ["X"], "env": {"X": "1"}}, "secrets[0]", "in env too"),
    ("secrets_are_names", {}, {"secrets": ["SLURM_JWT"]}, "secrets[0]", "launcher"),
]
