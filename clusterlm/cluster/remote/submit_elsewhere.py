"""submit and resume of a job on a cluster: code and data go there, then it is done there.

The key of a submit is written down here before anything is sent. When the connection breaks, the
same is asked with the same key: the clusterlm there answers with the run that it has made, or
makes it (`submit --key`). So there is one run, whatever happens.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clusterlm.cluster.remote import runs_elsewhere
from clusterlm.cluster.remote.answer_json import last_json
from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.remote.runs_elsewhere import Elsewhere
from clusterlm.cluster.remote.shipment import (
    Arrived,
    Shipment,
    plan_shipment,
    preview,
    refuse_mistakes,
    send,
)
from clusterlm.cluster.remote.snapshot import LIMIT
from clusterlm.cluster.secret_values import find_secrets
from clusterlm.errors import ClusterLMError, ConnectionLost, SshError
from clusterlm.spec.load import values_of
from clusterlm.spec.wording import printable

PERSIST_S = 300.0
"""How long a submit whose answer did not come is asked for again."""


@dataclass(frozen=True)
class Wish:
    """A job as the user asked for it.

    Attributes:
        yaml: the file.
        text: its content.
        overrides: `--set`, `--name` among them.
        limit: bytes that the project may have.
    """

    yaml: Path
    text: str
    overrides: list[str]
    limit: int = LIMIT

    @property
    def values(self) -> dict[str, Any]:
        return values_of(self.text, printable(self.yaml.name), self.overrides)


@dataclass(frozen=True)
class Answer:
    """What the clusterlm there said.

    Attributes:
        code: its exit code.
        value: its answer as JSON; None when it refused.
    """

    code: int
    value: dict[str, Any] | None = None


def submit(
    remote: Remote,
    wish: Wish,
    options: Sequence[str],
    *,
    tell: Callable[[str], None],
) -> Answer:
    """Send a job to a cluster; the same submit again gives the same run.

    Args:
        remote: the cluster.
        wish: the job.
        options: further ones of `submit`.
        tell: gets what the clusterlm there says on the way, and what goes there.

    Raises:
        RunError: the name is taken.
        SpecError: mistakes in the YAML, or paths that are nowhere.
        SshError: no connection; nothing was done.
        ConnectionLost: the run is written down as one that the cluster may have.
    """
    refuse_mistakes(wish.text, wish.yaml, wish.overrides)
    name = str(wish.values.get("name"))
    # the request itself is known when the code has been hashed; a name that is taken, before
    secrets = _secrets(wish.values)
    known = runs_elsewhere.find_elsewhere(name)
    if known is None or known.is_sent:
        runs_elsewhere.refuse_taken(name, remote.name, "")
    shipment = plan_shipment(remote, wish.yaml, wish.text, wish.overrides, limit=wish.limit)
    request = _request(shipment, wish, options)
    before = runs_elsewhere.refuse_taken(name, remote.name, request)
    for line in preview(shipment, remote.name):
        tell(line)
    arrived = send(shipment, remote, tell=tell)
    one = before or Elsewhere(name, remote.name, uuid.uuid4().hex, time.time(), request=request)
    code_state = _keep_code(remote, one.key, shipment)
    words = [*_words("submit", arrived, wish), *options, "--json", "--key", one.key]
    words += ["--from", arrived.folder]
    runs_elsewhere.remember(one)
    try:
        answer = _ask_until_answered(remote, words, secrets, code_state, tell)
    except KeyboardInterrupt:
        tell(_not_known(one))
        raise
    except SshError as error:
        raise type(error)(f"{error}\n  {_not_known(one)}") from error
    if answer.value is None:
        runs_elsewhere.forget(name)
        return answer
    job_ids = runs_elsewhere.job_ids_of(answer.value)
    run_dir = str(answer.value.get("run_dir", ""))
    runs_elsewhere.remember(replace(one, is_sent=True, job_ids=job_ids, run_dir=run_dir))
    return answer


def resume(
    remote: Remote,
    run: str,
    wish: Wish | None,
    options: Sequence[str],
    *,
    tell: Callable[[str], None],
) -> Answer:
    """Start an ended run again over there, as it was or with another job."""
    words, secrets, code_state = ["resume", run], b"", ""
    if wish is not None:
        refuse_mistakes(wish.text, wish.yaml, wish.overrides)
        secrets = _secrets(wish.values)
        shipment = plan_shipment(remote, wish.yaml, wish.text, wish.overrides, limit=wish.limit)
        for line in preview(shipment, remote.name):
            tell(line)
        arrived = send(shipment, remote, tell=tell)
        code_state = _keep_code(remote, uuid.uuid4().hex, shipment)
        words += ["--job", arrived.yaml, *_sets([*wish.overrides, *arrived.overrides])]
        words += ["--from", arrived.folder]
    else:
        tell(f"{run} goes on with the code that was sent; --job JOB sends what is here now")
    try:
        return _live(remote, [*words, *options, "--json"], secrets, code_state, tell)
    except ConnectionLost as error:
        # a second resume of a run that lives is refused over there, so asking again is safe
        raise ConnectionLost(
            f"{error}\n  whether {run} goes on is not known: `clusterlm status {run}` tells, and"
            " the same command again does no harm"
        ) from error


def _secrets(values: dict[str, Any]) -> bytes:
    """Values of the job's secrets as `--secrets-stdin` reads them."""
    found: dict[str, str] = {}
    for where, names in lists_of_secrets(values).items():
        found |= find_secrets(names, where)
    return json.dumps(found).encode() if found else b""


def lists_of_secrets(values: dict[str, Any]) -> dict[str, list[str]]:
    """Names of secrets, by the key that lists them; what is no list is refused elsewhere."""
    image = values.get("image")
    lists = {
        "secrets": values.get("secrets"),
        "image.build_secrets": image.get("build_secrets") if isinstance(image, dict) else None,
    }
    return {k: [str(name) for name in v] for k, v in lists.items() if isinstance(v, list)}


def _request(shipment: Shipment, wish: Wish, options: Sequence[str]) -> str:
    uploads = [upload.tree.digest for upload in shipment.uploads]
    parts = [shipment.snapshot.tree.digest, uploads, shipment.overrides, wish.overrides, *options]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _keep_code(remote: Remote, key: str, shipment: Shipment) -> str:
    """Lay down what is known of the code, for lock.json; gives the file's path there."""
    if shipment.code is None:
        fields, diff = {"root": str(shipment.snapshot.root)}, b""
        fields["snapshot"] = shipment.snapshot.tree.digest
    else:
        fields, diff = shipment.code[0].to_json(), shipment.code[1]
    texts = {"code.json": json.dumps(fields), "code.diff": diff.decode(errors="replace")}
    return f"{remote.there('keep', {'key': key, 'texts': texts})['path']}/code.json"


def _words(command: str, arrived: Arrived, wish: Wish) -> list[str]:
    return [command, arrived.yaml, *_sets([*wish.overrides, *arrived.overrides])]


def _sets(overrides: Sequence[str]) -> list[str]:
    return [word for text in overrides for word in ("--set", text)]


def _ask_until_answered(
    remote: Remote,
    words: Sequence[str],
    secrets: bytes,
    code_state: str,
    tell: Callable[[str], None],
) -> Answer:
    return remote.persist(lambda: _live(remote, words, secrets, code_state, tell), for_s=PERSIST_S)


def _live(
    remote: Remote,
    words: Sequence[str],
    secrets: bytes,
    code_state: str,
    tell: Callable[[str], None],
) -> Answer:
    """Run a command with --json there: its answer, and all else that it says as it comes."""
    held: list[str] = []

    def each(line: str) -> None:
        # the answer is the last line of its kind
        if line[:1] == "{":
            held.append(line)
        else:
            tell(line)

    if secrets:
        words = [*words, "--secrets-stdin"]
    done = remote.live(words, each, stdin=secrets, code_state=code_state)
    code = _code(remote, done.code)
    value = last_json(held)
    if code == 0 and not isinstance(value, dict):
        raise ClusterLMError(f"{remote.name}: what came back is no answer")
    return Answer(code, value if code == 0 else None)


def _code(remote: Remote, code: int | None) -> int:
    return 2 if code is None else code


def _not_known(one: Elsewhere) -> str:
    return (
        f"whether {one.cluster} has taken {one.run} is not known; the same command again goes on"
        f" with it, and `clusterlm status {one.run}` tells"
    )
