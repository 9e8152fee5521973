"""The import as a job: what is sent, what is waited for, what is said when it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from clusterlm.cluster.host import Completed
from clusterlm.cluster.images.import_job import import_by_slurm
from clusterlm.cluster.images.importing import import_of, write_script
from clusterlm.cluster.images.progress import Screen
from clusterlm.errors import ImageError, SlurmError
from clusterlm.image_paths import ImagePaths
from clusterlm.node.files import write_json
from clusterlm.render import Import
from tests.images.test_import import RECIPE, REGISTRY, record_of
from tests.images.tiny import collect, job_on

ENDED = "COMPLETED", "FAILED", "CANCELLED"


class Slurm:
    """A host whose job goes through `states`, one a look."""

    def __init__(self, states: list[str], at_end: Callable[[], None] = lambda: None) -> None:
        self.states, self.at_end = states, at_end
        self.calls: list[Sequence[str]] = []

    def has(self, program: str) -> bool:
        return True

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> Completed:
        self.calls.append(argv)
        if argv[0] == "sbatch":
            return Completed(tuple(argv), 0, "71;cluster\n", "")
        if argv[0] == "squeue":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            if state in ENDED:
                self.at_end()
            if state == "DOWN":
                err = "slurm_load_jobs error: Unable to contact slurm controller"
                return Completed(tuple(argv), 1, "", err)
            if state == "GONE":
                return Completed(tuple(argv), 1, "", "Invalid job id specified")
            row = (
                f"{'71':<24}{state:<24}{'0':<12}{'now':<24}{'0':<12}{'node3':<256}{'Priority':<192}"
            )
            return Completed(tuple(argv), 0, row, "")
        if argv[0] == "sacct":
            return Completed(tuple(argv), 1, "", "Slurm accounting storage is disabled")
        return Completed(tuple(argv), 0, "", "")

    def stream(self, argv: Sequence[str], each: Callable[[str], None]) -> int:
        raise AssertionError(argv)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(tmp_path / "images"))
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    monkeypatch.setenv("ENROOT_SQUASH_OPTIONS", "-comp zstd")
    image = job_on("base:1", registry=REGISTRY).image
    assert image
    return import_of(image, ImagePaths(RECIPE), record_of(), "pyxis")


def imports(asked: Import, slurm: Slurm) -> list[str]:
    job = job_on("base:1", cluster="slurm", registry=REGISTRY, import_on="slurm")
    lines, tell = collect()
    screen = Screen(tell, None, iter(range(0, 10_000, 40)).__next__)
    import_by_slurm(job, asked, write_script(asked), slurm, screen, sleep=lambda _: None)
    return lines


def finish(asked: Import) -> None:
    asked.file.parent.mkdir(parents=True, exist_ok=True)
    asked.file.write_bytes(b"hsqs")
    write_json(asked.file.with_name(f"{asked.file.name}.json"), {"bytes": 4, "sha256": "0"})


def test_a_job_is_sent_and_waited_for(asked: Import) -> None:
    slurm = Slurm(["PENDING", "DOWN", "RUNNING", "COMPLETED"], lambda: finish(asked))
    lines = imports(asked, slurm)
    assert lines[0].endswith(": job 71")
    assert "in the queue: jobs with a higher priority wait before it" in lines[1]
    assert "on node3: started" in "\n".join(lines)
    sent = slurm.calls[0]
    assert sent[:2] == ["sbatch", "--parsable"]
    # names of what is passed on, and no values
    passed = sent[2].removeprefix("--export=").split(",")
    assert "PATH" in passed
    assert "ENROOT_SQUASH_OPTIONS" in passed
    assert "HF_TOKEN" not in passed
    assert Path(sent[3]).read_text().startswith("#!/usr/bin/env bash\n")
    assert not [call for call in slurm.calls if call[0] == "scancel"]


def test_a_job_that_slurm_has_forgotten_is_known_by_its_file(asked: Import) -> None:
    finish(asked)
    imports(asked, Slurm(["GONE"]))


def test_a_job_that_fails_is_told_in_its_own_words(asked: Import) -> None:
    def fail() -> None:
        log = asked.image.context / "71_0_log.err"
        log.write_text(
            "clusterlm import refuses: there is no enroot on node3\n  run it elsewhere\n"
        )

    with pytest.raises(ImageError) as error:
        imports(asked, Slurm(["RUNNING", "FAILED"], fail))
    text = str(error.value)
    assert text.startswith("job 71 (FAILED): there is no enroot on node3\n  run it elsewhere\n")
    assert "71_0_log.err" in text


def test_who_gives_up_waiting_takes_the_job_back(asked: Import) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    slurm = Slurm(["CANCELLED"], interrupt)
    with pytest.raises(KeyboardInterrupt):
        imports(asked, slurm)
    assert slurm.calls[-1] == ["scancel", "71"]


def test_what_sbatch_refuses_is_told(asked: Import) -> None:
    slurm = Slurm(["PENDING"])
    slurm.run = lambda argv, timeout_s=30.0: Completed(  # type: ignore[method-assign]
        tuple(argv), 1, "", "sbatch: error: Batch job submission failed: Invalid partition"
    )
    with pytest.raises(SlurmError, match="sbatch refused the import: Invalid partition"):
        imports(asked, slurm)
