"""A save: sealed last, in the background where asked for, never by a fenced attempt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterlm.errors import Fenced
from clusterlm.node.seal import verify
from clusterlm.supervise.checkpoints import resume_from
from clusterlm.train import checkpoints
from clusterlm.train.checkpoints import CheckpointStore, Saved
from tests.train.forked import Forks
from tests.train.launching import Run


class Alone:
    """A group of one rank."""

    is_first = True

    def any(self, flag: bool) -> bool:
        return flag

    def barrier(self) -> None: ...


def store(root: Path, **more: Any) -> CheckpointStore:
    group: Any = Alone()
    return CheckpointStore(root, 1, 2, group, **more)


def save(to: CheckpointStore, step: int) -> Path:
    with to.writing(step) as folder:
        (folder / "weights.bin").write_bytes(b"some")
    return folder


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Sealing waits until it is set."""
    opened, seal = threading.Event(), checkpoints.seal

    def slow(*what: Any, **how: Any) -> Path:
        assert opened.wait(30)
        return seal(*what, **how)

    monkeypatch.setattr(checkpoints, "seal", slow)
    return opened


def test_the_training_goes_on_while_a_checkpoint_is_sealed(
    tmp_path: Path, gate: threading.Event
) -> None:
    heard: list[Saved] = []
    saves = store(tmp_path, in_background=True, report=heard.append, notes={"batch.json": {}})
    folder = save(saves, 1)
    assert verify(folder) == "no readable MANIFEST.json"
    assert not heard
    gate.set()
    saves.finish()
    assert verify(folder) is None
    assert (folder / "batch.json").read_text().strip() == "{}"
    assert [saved.step for saved in heard] == [1]
    assert heard[0].stalled <= heard[0].seconds


def test_the_next_save_waits_for_the_one_before(tmp_path: Path, gate: threading.Event) -> None:
    saves = store(tmp_path, in_background=True)
    first = save(saves, 1)
    threading.Timer(0.2, gate.set).start()
    with saves.writing(2) as folder:
        assert verify(first) is None
        (folder / "weights.bin").write_bytes(b"more")
    saves.finish()
    assert verify(folder) is None


@pytest.mark.parametrize("in_background", [False, True])
def test_a_fenced_attempt_leaves_it_unsealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_background: bool
) -> None:
    saves = store(tmp_path, in_background=in_background)

    def fence() -> None:
        raise Fenced("attempt 2 is alive")

    def save_and_be_fenced() -> None:
        with saves.writing(1) as folder:
            (folder / "weights.bin").write_bytes(b"some")
            monkeypatch.setattr(checkpoints, "look_at_lease", fence)
        saves.finish()

    with pytest.raises(Fenced):
        save_and_be_fenced()
    assert not (tmp_path / "checkpoint-1" / "MANIFEST.json").exists()


def test_the_stall_is_told_where_there_was_less_of_it() -> None:
    assert Saved(50, 3.24, 0.4).words == (
        "saved checkpoint-50 in 3.2 s (training stood still 0.4 s)"
    )
    assert Saved(50, 3.24, 3.24).words == "saved checkpoint-50 in 3.2 s"


def test_broken_checkpoints_are_named_set_aside_and_written_again(
    make_run: Callable[..., Run], forks: Forks, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {"max_steps": 6, "save_steps": 2, "save_in_background": True, "eval_on_start": False}
    run = make_run(ranks=1, train=train | {"keep_checkpoints": 3})
    assert run.train_forked(forks) == [0], run.output
    straight = run.losses()
    assert "saved checkpoint-2 in" in run.output

    weights = run.checkpoint(4) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (run.checkpoint(6) / "MANIFEST.json").unlink()
    newest = resume_from(run.root / "checkpoints", own_script=False)
    assert newest == run.checkpoint(2)
    said = capsys.readouterr().out
    assert "checkpoint-6 is not whole and is set aside: no readable MANIFEST.json" in said
    assert "checkpoint-4 is not whole and is set aside: model.safetensors: content is not" in said

    assert run.train_forked(forks, attempt=2, resume=str(newest)) == [0], run.output
    assert run.losses() == straight
    found = sorted(folder.name for folder in (run.root / "checkpoints").iterdir())
    asides = ["checkpoint-4.broken-1", "checkpoint-6.broken-1"]
    assert found == ["checkpoint-2", "checkpoint-4", asides[0], "checkpoint-6", asides[1]]
    assert verify(run.checkpoint(6)) is None
