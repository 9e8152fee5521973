from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterlm.cluster.cancel import Cancelled, cancel
from clusterlm.node.seal import seal
from tests.cluster.fake_host import FakeHost
from tests.cluster.run_folders import RunFolder

ERROR = "rank 0 on n1 exited 1: TypeError: unsupported operand"


def save(run: RunFolder, step: int) -> None:
    folder = run.paths.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "state").write_text(str(step))
    seal(folder, step, 1)


def cancelled(run: RunFolder, what_follows: Callable[[], None] | None) -> Cancelled:
    """Cancel a run whose supervisor does `what_follows` when it sees the request."""

    def obey() -> None:
        while not run.paths.cancel.exists():
            time.sleep(0.01)
        if what_follows:
            what_follows()

    thread = threading.Thread(target=obey)
    thread.start()
    done = cancel(
        run.paths,
        FakeHost(),
        is_running=lambda: what_follows is not None,
        tell=lambda line: None,
    )
    thread.join()
    return done


def attempt_ended(run: RunFolder, cause: str, evidence: str, newest_step: int | None) -> None:
    fields = {"phase": "train", "attempt": 1, "cause": cause, "evidence": evidence}
    run.event("attempt_ended", newest_step=newest_step, **fields)
    state = "DONE" if cause == "DONE" else "CANCELLED"
    run.ended(state, cause if cause == "DONE" else "CANCELLED", evidence="cancelled")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path)
    run.training()
    save(run, 20)
    return run


def test_a_checkpoint_made_after_the_request_is_named(run: RunFolder) -> None:
    def obey() -> None:
        save(run, 27)
        attempt_ended(run, "CANCELLED", "ended in order", 27)

    assert cancelled(run, obey).words == "saved step 27 and ended"


def test_an_older_checkpoint_is_not_called_saved_and_the_failed_save_is_told(
    run: RunFolder,
) -> None:
    done = cancelled(run, lambda: attempt_ended(run, "USER_ERROR", f"\x1b[31m{ERROR}", 20))
    assert done.saved_step is None
    assert done.words == f"ended, but the save failed: {ERROR}; the newest checkpoint is step 20"


def test_an_end_in_order_without_a_newer_checkpoint_names_the_newest(run: RunFolder) -> None:
    done = cancelled(run, lambda: attempt_ended(run, "CANCELLED", "ended without a save", 20))
    assert done.words == "ended; the newest checkpoint is step 20"


def test_failures_of_earlier_attempts_are_not_told_of_the_cancel(run: RunFolder) -> None:
    run.event("attempt_ended", phase="train", attempt=1, cause="USER_ERROR", newest_step=20)
    done = cancelled(run, None)
    assert (done.trouble, done.words) == ("", "ended; the newest checkpoint is step 20")


def test_a_run_that_came_to_its_end_meanwhile_is_called_done(run: RunFolder) -> None:
    done = cancelled(run, lambda: attempt_ended(run, "DONE", "every rank exited 0", 30))
    assert done.was_done
    assert "DONE" in done.words
