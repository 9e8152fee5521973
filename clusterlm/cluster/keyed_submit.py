"""A submit with a key happens once, however often it is asked for.

A laptop whose connection broke cannot know whether its submit came through, and asks again with
the same key: `<runs_dir>/.submits/<key>/` has the lock, which call it is, and what came of it.

    result is there                  the same result
    the first call is at work        wait for it, then the same result
    the first call was killed        its lock is free and there is no result: go on where it was
    the first call was refused       begin anew; a refused submit leaves nothing

Going on is `submit.py`'s: the run directory names the key, each send has its token, and
`sbatch_once` finds what was sent. Nothing here asks Slurm.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from clusterlm.cluster.locks import alone
from clusterlm.cluster.run_folder import spec_text
from clusterlm.cluster.submit import Submission
from clusterlm.errors import RunError
from clusterlm.node.files import read_json, write_json
from clusterlm.paths import PRIVATE_DIR, RunPaths, runs_dir
from clusterlm.spec.job import Job

_KEY = re.compile(r"[0-9a-f]{32}")


def clean_key(text: str) -> str:
    """The key as it is used: 32 hexadecimal digits; a uuid's dashes and capitals are taken off.

    Raises:
        RunError: it is something else.
    """
    key = text.strip().lower().replace("-", "")
    if not _KEY.fullmatch(key):
        raise RunError(
            f"--key {text!r} is no uuid; make one:  python3 -c 'import uuid; "
            "print(uuid.uuid4().hex)'"
        )
    return key


def submit_once(
    key: str, job: Job, submit: Callable[[], Submission], tell: Callable[[str], None]
) -> Submission:
    """What `submit` gives, from this call or from an earlier one with the same key.

    Raises:
        RunError: the key belongs to another job.
    """
    folder = runs_dir() / ".submits" / key
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    request, result = folder / "request.json", folder / "result.json"

    def waits() -> None:
        tell("another call of this submit is at work: waiting for it")

    with alone(folder / "lock", waits=waits):
        digest = hashlib.sha256(spec_text(job).encode()).hexdigest()
        if (read_json(request) or {"job": digest}).get("job") != digest:
            raise RunError(f"key {key} was used to submit another job; each submit has its own")
        write_json(request, {"job": digest, "name": job.name})
        if done := read_json(result):
            return _submission(done)
        submission = submit()
        write_json(result, submission.fields() | {"tasks": submission.tasks})
        return submission


def _submission(fields: dict[str, object]) -> Submission:
    known = {k: v for k, v in fields.items() if k not in ("run", "run_dir")}
    return Submission(run=RunPaths(Path(str(fields["run_dir"]))), **known)  # type: ignore[arg-type]
