"""Every place of a job and of a profile x every payload: refused in words, or literally there.

Whatever a spec lets through is rendered to everything that a job becomes. Each text has the same
structure as that of a harmless value, is clean shell, and runs without calling anything of the
payload's; arguments and variables arrive byte for byte.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clusterlm import container, render
from clusterlm.errors import ClusterLMError
from clusterlm.spec.image import Runtime
from clusterlm.spec.job import Job, build_validators
from clusterlm.spec.profile import Profile
from tests.hostile.fields import HARMLESS, Place, choices_at, filled, name_of, places_in
from tests.hostile.payloads import PAYLOADS
from tests.hostile.rendering import (
    IMAGES,
    docker_steps,
    sbatch_options,
    srun_options,
    texts_of,
)
from tests.hostile.running import PYTHON, Range

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    build_validators()
    PLACES = list(dict.fromkeys(places_in(Job)))
    PROFILE_PLACES = list(dict.fromkeys(places_in(Profile)))

# two numbers and nothing else
NEVER_ALONE = {"model.vocab.expect[]"}
BASE: dict[str, Any] = {"cluster": "slurm"}


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", "/shared/cache")
    monkeypatch.setattr(render.sys, "executable", PYTHON)
    monkeypatch.setattr(container.image_build, "code_digest", lambda _: "c" * 64)


def accepted(place: Place, value: Any) -> Job | None:
    try:
        return Job.model_validate({**BASE, **filled(place, value)})
    except ValidationError:
        return None


def harmless(place: Place) -> Job | None:
    tried = (accepted(place, value) for value in (*choices_at(place), *HARMLESS))
    return next((job for job in tried if job is not None), None)


def test_there_are_enough_payloads_and_every_place_takes_something() -> None:
    assert len(set(PAYLOADS)) >= 40
    assert len(PLACES) > 300
    without = {name_of(place) for place in PLACES if harmless(place) is None}
    assert without == NEVER_ALONE


def test_what_a_spec_lets_through_stays_in_its_place(tmp_path: Path) -> None:
    ground = Range(tmp_path)
    scripts: dict[str, tuple[str, Job, str]] = {}
    counts: Counter[str] = Counter()
    seen: set[bytes] = set()
    num_scripts = 0
    for place in PLACES:
        reference = harmless(place)
        if reference is None:
            continue
        found = [(p, job) for p in PAYLOADS if (job := accepted(place, p)) is not None]
        counts["accepted"] += len(found)
        counts["refused"] += len(PAYLOADS) - len(found)
        if not _reaches_a_text(found, reference):
            continue
        wanted = texts_of(reference)
        shape = {name: _shape(name, text) for name, text in wanted.items()}
        for payload, job in found:
            where = f"{name_of(place)} = {payload[:60]!r}"
            texts = _texts_or_none(job)
            counts["refused by the renderer"] += not texts
            for name, text in texts.items():
                whole = f"{name}\0{text}".encode("utf-8", "surrogateescape")
                digest = hashlib.sha256(whole).digest()
                if digest in seen:
                    continue
                seen.add(digest)
                if name in shape:
                    _same(_shape(name, text), shape[name], f"{name}: {where}")
                if not name.endswith(("Dockerfile", ".options")):
                    file = f"{num_scripts:05}"
                    num_scripts += 1
                    # what runs inside is the same for every runtime (tests/test_render.py)
                    is_run = name.split(".")[0] not in ("pyxis", "enroot", "apptainer")
                    is_run |= name.endswith("container.sh")
                    if is_run:
                        scripts[file] = (f"{name}: {where}", job, name)
                    ground.add(file, text, is_run=is_run)
    assert counts["refused"] > counts["accepted"] > 1000
    assert len(scripts) > 100
    assert ground.check_syntax() == ""
    ran = ground.run()
    assert not ground.trapped.exists(), ground.trapped.read_text()
    assert not list((tmp_path / "cwd").iterdir())
    for file, (where, job, name) in scripts.items():
        done = ran[file]
        assert done.argv, f"{where}\n{done.err}"
        if name.endswith(".sh") and "container" not in name:
            assert {k: done.env.get(k) for k in job.env} == dict(job.env), where
        if name.endswith("torchrun.sh") and job.train.command:
            own = done.argv[done.argv.index("clusterlm.node.rank") + 2 :]
            command = job.train.command
            is_python = command[0].endswith(".py")
            assert (own[1:] if is_python else own) == command, where


def _texts_or_none(job: Job, runtimes: Iterable[Runtime] = tuple(IMAGES)) -> dict[str, str]:
    try:
        return texts_of(job, runtimes)
    except ClusterLMError:
        return {}


def _reaches_a_text(found: list[tuple[str, Job]], reference: Job) -> bool:
    """Whether a place is written anywhere but in spec.json: the first value shows it, or paths."""
    telling = [job for number, (value, job) in enumerate(found) if not number or value[0] == "/"]
    wanted = texts_of(reference, ["docker"]) if telling else {}
    return any(_texts_or_none(job, ["docker"]) != wanted for job in telling)


def _shape(name: str, text: str) -> Any:
    """What of a text a value must not change."""
    if name == "Dockerfile":
        steps = docker_steps(text)
        return [(step[0], len(step) > 1) for step in steps]
    if name.endswith(".options"):
        return srun_options(text)
    return sbatch_options(text) if name.endswith(".sbatch") else None


def _same(found: Any, wanted: Any, where: str) -> None:
    if "train.sbatch: resources.extra" in where:
        # it is an option of sbatch, which the user has chosen; `rules` refuse those that are ours
        assert len(found) == len(wanted)
        found, wanted = found[:-1], wanted[:-1]
    assert found == wanted, where


def test_a_profile_takes_nothing_that_ssh_or_a_shell_reads_otherwise() -> None:
    """`setup` is shell by its nature, `env` goes where a job's does."""
    num = 0
    for place in PROFILE_PLACES:
        where = name_of(place)
        for payload in PAYLOADS:
            try:
                Profile.model_validate(filled(place, payload))
            except ValidationError:
                continue
            num += 1
            if where in ("setup[]", "env.{value}"):
                assert not re.search(r"[\0\n\r\x1b\u202e]", payload), where
            elif where == "resources.constraint":
                assert re.fullmatch(r"[A-Za-z0-9([][\w.&|*\[\]()-]*", payload), (where, payload)
            elif where == "resources.extra[]":
                assert payload.startswith("--"), (where, payload)
                assert not re.search(r"[\s;'\"`$<>|&(){}\\*?#!]", payload), (where, payload)
            else:
                assert re.fullmatch(r"(?:~/?)?[\w./@+=:,\[\]{}-]*", payload), (where, payload)
                assert not payload.startswith("-"), (where, payload)
    assert num > 20
