"""The environment is defined, not inherited: what a job and its steps get to see.

Everything of the submitting shell would end in the scheduler's records, in every node's processes
and in containers, secrets and PYTHONPATH included. So a short list passes, the spec adds `env`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager

from clusterlm.container import is_passed
from clusterlm.supervise.allocation import LOCAL_GPUS, LOCAL_NODES

# settings of the site's enroot and apptainer
_RUNTIMES = ("ENROOT_", "APPTAINER_", "SINGULARITY_")
_PASS = {
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "TERM"),
    *("LD_LIBRARY_PATH", "CUDA_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    # which docker a container is started by
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"),
    # what this machine stands for in a local run
    *(LOCAL_NODES, LOCAL_GPUS),
    *("MODULEPATH", "SLURM_CONF", "SLURM_CLUSTERS", "CLUSTERLM_RUNS_DIR", "CLUSTERLM_CACHE_DIR"),
}
_PASS_PREFIXES = ("LC_", "SBATCH_", *_RUNTIMES)
# what Slurm, or the site's prolog, sets inside a job
_JOB_PREFIXES = ("SLURM", "CUDA_VISIBLE", "ROCR_VISIBLE", "GPU_DEVICE", "NCCL_", "UCX_", "PMIX_")


def for_submission(environ: Mapping[str, str], *, without: Iterable[str] = ()) -> dict[str, str]:
    """What sbatch, or the local executor, passes on.

    SLURM_* of an allocation that the user happens to sit in must not reach the new job.

    Args:
        environ: of this process.
        without: names of secrets: a proxy's URL may be one, and Slurm stores the environment.
    """
    passed = {k: v for k, v in environ.items() if k in _PASS or k.startswith(_PASS_PREFIXES)}
    return {k: v for k, v in passed.items() if k not in set(without)}


def for_step(environ: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """What a step gets: the above, what Slurm set for the job, and the attempt's own variables."""
    prefixes = ("LC_", *_RUNTIMES, *_JOB_PREFIXES)
    return {**{k: v for k, v in environ.items() if k in _PASS or k.startswith(prefixes)}, **own}


def for_container(environ: Mapping[str, str]) -> list[str]:
    """Names of what goes from a step's environment into a container: a list for srun's --export."""
    return sorted(name for name in environ if is_passed(name))


@contextmanager
def replaced(environ: MutableMapping[str, str], by: Mapping[str, str]) -> Iterator[None]:
    """Exchange a process environment for a while: submitit passes its own on, with no parameter."""
    before = dict(environ)
    environ.clear()
    environ.update(by)
    try:
        yield
    finally:
        environ.clear()
        environ.update(before)
