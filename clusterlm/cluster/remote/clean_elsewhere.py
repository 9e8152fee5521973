"""`clusters clean` of a cluster that is reached over SSH: one call of the clusterlm there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clusterlm.cluster.log_text import readable_line
from clusterlm.cluster.remote.answer_json import last_json
from clusterlm.cluster.remote.forward import Remote
from clusterlm.errors import ClusterLMError


def clean_elsewhere(
    remote: Remote, older_than_s: int, *, remove: bool, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Look, or remove; gives the answer of `cleaning.clean` there. May be asked for twice.

    Raises:
        ClusterLMError: it refused, in its own words.
        SshError: no connection. What was removed till then is gone, the rest is whole.
    """
    words = ["clusters", "clean", remote.name, "--older-than", f"{older_than_s}s", "--json"]
    held: list[str] = []
    # thousands of files on a slow disk take minutes
    done = remote.persist(
        lambda: remote.live([*words, *(["--yes"] if remove else [])], held.append, outputs="apart")
    )
    if done.code:
        raise ClusterLMError(remote.refusal(done))
    for line in filter(str.strip, done.err.splitlines()):
        tell(readable_line(line))
    answer = last_json(held)
    if not isinstance(answer, dict):
        raise ClusterLMError(f"{remote.name}: what came back of the cleaning is no answer")
    return answer
