"""Why an image did not start, read from what pyxis, enroot, docker and apptainer really print."""

from __future__ import annotations

import pytest

from clusterlm.supervise.causes import Cause
from clusterlm.supervise.image_failure import ImageFailure, find_image_failure
from clusterlm.supervise.judge import decide, judge_attempt
from clusterlm.supervise.views import Action, AttemptView, Left, PastAttempt

NODES = ("node1", "node2")


def pyxis(rank: int, *log: str, first: str = "failed with error code: 1") -> list[str]:
    """The block of one node, as Slurm 22.05 prints it on several nodes."""
    lines = [
        f"child 20064 {first}",
        "failed to create container filesystem",
        "printing enroot log file:",
        *(f"    {line}" for line in log),
        "couldn't start container",
    ]
    step = f"{rank}: slurmstepd-node{rank + 1}: error:"
    plugin = f"{step} spank: required plugin spank_pyxis.so: task_init() failed with rc=-1"
    return [*(f"{step} pyxis: {line}" for line in lines), plugin]


def exited(rank: int) -> str:
    return f"srun: error: node{rank + 1}: task {rank}: Exited with exit code 1"


MISSING = "[ERROR] No such file or directory: /images/x.sqsh"
ENDED = pyxis(
    0,
    "[INFO] Extracting squashfs filesystem...",
    "Terminated",
    first="failed with error code: 143",
)


def found(*lines: str, nodes: tuple[str, ...] = NODES) -> ImageFailure | None:
    return find_image_failure("\n".join(lines), nodes)


def test_a_file_that_no_node_has_is_told_in_the_words_of_enroot() -> None:
    failure = found(*pyxis(0, MISSING), exited(0), *pyxis(1, MISSING), exited(1))
    assert failure == ImageFailure(MISSING, ())


def test_a_node_that_srun_ended_because_of_another_is_not_blamed() -> None:
    assert found(*pyxis(1, MISSING), exited(1), *ENDED, exited(0)) == ImageFailure(
        MISSING, ("node2",)
    )
    by_signal = pyxis(0, "[INFO] Extracting", first="terminated with signal 15")
    assert found(*by_signal, *pyxis(1, MISSING)) == ImageFailure(MISSING, ("node2",))


def test_a_step_that_was_cancelled_while_its_image_started_is_no_failure_of_the_image() -> None:
    assert found(*ENDED, exited(0), *pyxis(1, first="terminated with signal 15")) is None


def test_an_older_slurm_names_the_task_only() -> None:
    lines = [line.replace("slurmstepd-node2", "slurmstepd") for line in pyxis(1, MISSING)]
    assert found(*lines, exited(1)) == ImageFailure(MISSING, ("node2",))


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            ("[INFO] Extracting", "Read on filesystem failed", "FATAL ERROR: File system corrupt"),
            "FATAL ERROR: File system corrupt",
        ),
        (
            (
                "nvidia-container-cli: initialization error",
                "[ERROR] /etc/enroot/hooks.d/98-nvidia.sh exited with return code 1",
            ),
            "nvidia-container-cli: initialization error",
        ),
        (
            ("enroot-mount: failed to mount: /nope at /x/nope: No such file or directory",),
            "enroot-mount: failed to mount: /nope at /x/nope: No such file or directory",
        ),
        ((), "failed to create container filesystem"),
    ],
)
def test_the_line_that_tells_most_is_chosen(log: tuple[str, ...], reason: str) -> None:
    assert found(*pyxis(0, *log), *pyxis(1, *log)) == ImageFailure(reason, ())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "srun: unrecognized option '--container-image=/x.sqsh'",
            ["unrecognized option", "no pyxis", "enroot or apptainer"],
        ),
        ("docker: Error response from daemon: No such image: clusterlm:1.", ["build-image"]),
        (
            'docker: Error response from daemon: could not select device driver "" with '
            "capabilities: [[gpu]].",
            ["toolkit", "--gpus none"],
        ),
        ("docker: Cannot connect to the Docker daemon at unix:///x. Is it running?.", ["connect"]),
        ("/runs/x/container.sh: line 48: docker: command not found", ["has no docker"]),
        ("[ERROR] Invalid image format: /x.sqsh", ["Invalid image format"]),
        ("FATAL:   could not open image /x.sif: no such file or directory", ["could not open"]),
        ("clusterlm image: it holds clusterlm 0.1 (ab), the run was ...", ["it holds clusterlm"]),
    ],
)
def test_each_runtime_is_understood(line: str, words: list[str]) -> None:
    failure = found("docker: see below", line, "See 'docker run --help'.", nodes=())
    assert failure is not None
    assert failure.hosts == ()
    plain = found(line, nodes=())
    assert plain is not None
    for word in words:
        assert word in plain.reason


def test_a_mismatch_is_about_the_image_and_missing_gpus_are_about_a_node() -> None:
    mismatch = "1: clusterlm image: it holds clusterlm 0.1.0 (ab), the run was submitted by 0.2.0"
    assert found(mismatch, exited(1)) == ImageFailure(mismatch[3:], ())
    gpus = "1: clusterlm image: 7 of 8 GPUs are seen on node2; look at nvidia-smi there"
    assert found(gpus, exited(1)) == ImageFailure(gpus[3:], ("node2",))


@pytest.mark.parametrize(
    "line",
    [
        "0: image: clusterlm 0.1.0, torch 2.5.0 of the base, CUDA 12.6, 8 GPUs",
        "pyxis: importing docker image: x",
        "0: 2026-11-21 13:02:24 agent 0 (node1): exits with 2",
        "/runs/x/container.sh: line 67:  4280 Killed                  docker run --rm",
        "srun: error: node1: task 0: Exited with exit code 1",
    ],
)
def test_other_lines_say_nothing_of_an_image(line: str) -> None:
    assert found(line) is None


def view(output: list[str], **fields: object) -> AttemptView:
    shown = {"step_code": 1, "step_tail": "\n".join(output), "nodes": NODES, "expected_ranks": 2}
    return AttemptView(**{**shown, **fields})  # type: ignore[arg-type]


def test_a_bad_node_is_left_out_once_and_an_image_that_starts_nowhere_ends_the_run() -> None:
    one = judge_attempt(view([*pyxis(1, MISSING), exited(1)]))
    assert one is not None
    assert (one.cause, one.host, one.bad_hosts) == (Cause.IMAGE_ON_NODE, "node2", ("node2",))
    assert MISSING in one.evidence
    left = Left(healthy_nodes=2, wanted_nodes=2, least_nodes=2, may_requeue=True)
    assert decide(one, [], left).action is Action.RETRY
    assert decide(one, [PastAttempt(Cause.IMAGE_ON_NODE, None)], left).action is Action.STOP
    every = judge_attempt(view([*pyxis(0, MISSING), *pyxis(1, MISSING)]))
    assert every is not None
    assert (every.cause, every.evidence) == (Cause.IMAGE, MISSING)
    assert decide(every, [], left).action is Action.STOP


def test_agents_that_took_sruns_clearing_up_for_preemption_do_not_hide_the_image() -> None:
    output = [*pyxis(1, MISSING), exited(1)]
    finding = judge_attempt(view(output, stop_reason="preempted", ranks_seen=1))
    assert finding is not None
    assert finding.cause is Cause.IMAGE_ON_NODE
    asked = judge_attempt(view(output, stop_reason="cancel"))
    assert asked is not None
    assert asked.cause is Cause.CANCELLED


def test_once_every_rank_has_started_the_image_is_no_cause_any_more() -> None:
    finding = judge_attempt(view([MISSING], ranks_seen=2))
    assert finding is not None
    assert finding.cause is not Cause.IMAGE
