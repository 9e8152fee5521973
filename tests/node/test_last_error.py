"""Ends of logs as real programs write them, and what they should be told as."""

# ruff: noqa: E501  (the lines of a log are quoted as they are)

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.node.last_error import (
    MAX_BYTES,
    MAX_LINES,
    TAIL_BYTES,
    find_error,
    read_last_error,
)


class Sample(NamedTuple):
    name: str
    log: str
    error: str
    begins: str | None
    """First line of the excerpt, None when there is none."""
    ends: str | None
    """Last line of the excerpt."""


HEAD = "Traceback (most recent call last):"

SAMPLES = [
    Sample(
        "plain, with log lines after it",
        """\
        step 1 loss 2.5
        Traceback (most recent call last):
          File "train.py", line 9, in <module>
            main()
          File "train.py", line 5, in main
            raise ValueError("bad shape: (3, 4)")
        ValueError: bad shape: (3, 4)
        wandb: Synced 5 W&B file(s), 0 media file(s)
        2026-11-21 02:00:01,123 INFO shutting down
        """,
        "ValueError: bad shape: (3, 4)",
        HEAD,
        "ValueError: bad shape: (3, 4)",
    ),
    Sample(
        "during handling",
        """\
        Traceback (most recent call last):
          File "a.py", line 2, in <module>
            {}["x"]
            ~~^^^^^
        KeyError: 'x'

        During handling of the above exception, another exception occurred:

        Traceback (most recent call last):
          File "a.py", line 4, in <module>
            raise RuntimeError("no column x")
        RuntimeError: no column x
        """,
        "RuntimeError: no column x",
        HEAD,
        "RuntimeError: no column x",
    ),
    Sample(
        "direct cause, after an unrelated one that was survived",
        """\
        Traceback (most recent call last):
          File "b.py", line 1, in f
        OSError: transient
        retrying
        Traceback (most recent call last):
          File "a.py", line 2, in <module>
        KeyError: 'x'

        The above exception was the direct cause of the following exception:

        Traceback (most recent call last):
          File "a.py", line 4, in <module>
        clusterlm.errors.DataError: sources[0] has no column x
        """,
        "clusterlm.errors.DataError: sources[0] has no column x",
        HEAD,
        "clusterlm.errors.DataError: sources[0] has no column x",
    ),
    Sample(
        "cuda out of memory, with torch's rank prefix",
        """\
        [rank3]: Traceback (most recent call last):
        [rank3]:   File "/opt/train.py", line 210, in <module>
        [rank3]:     trainer.train()
        [rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total capacity of 79.10 GiB
        [rank3]:[W1121 02:11:09.123456789 ProcessGroupNCCL.cpp:1496] Warning: destroy_process_group() was not called
        """,
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total"
        " capacity of 79.10 GiB",
        HEAD,
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total"
        " capacity of 79.10 GiB",
    ),
    Sample(
        "a device-side assert: a message of several lines, then an abort",
        """\
        ../aten/src/ATen/native/cuda/Indexing.cu:1284: indexSelect: block: [1,0,0] Assertion `srcIndex < srcSelectDimSize` failed.
        Traceback (most recent call last):
          File "train.py", line 7, in <module>
        RuntimeError: CUDA error: device-side assert triggered
        CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
        For debugging consider passing CUDA_LAUNCH_BLOCKING=1
        Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.

        terminate called after throwing an instance of 'c10::Error'
          what():  CUDA error: device-side assert triggered
        Fatal Python error: Aborted

        Thread 0x00007f5a3d7fa640 (most recent call first):
          File "/usr/lib/python3.12/threading.py", line 359 in wait
        """,
        "RuntimeError: CUDA error: device-side assert triggered",
        HEAD,
        "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
    ),
    Sample(
        "an error in a data loader's worker",
        """\
        Traceback (most recent call last):
          File "train.py", line 31, in <module>
            for batch in loader:
          File "/usr/lib/python3/torch/_utils.py", line 769, in reraise
            raise exception
        RuntimeError: Caught KeyError in DataLoader worker process 0.
        Original Traceback (most recent call last):
          File "/usr/lib/python3/torch/utils/data/_utils/worker.py", line 349, in _worker_loop
            data = fetcher.fetch(index)
          File "train.py", line 12, in __getitem__
        KeyError: 'input_ids'
        """,
        "KeyError: 'input_ids'",
        HEAD,
        "KeyError: 'input_ids'",
    ),
    Sample(
        "torch.multiprocessing.spawn",
        """\
        Traceback (most recent call last):
          File "spawn.py", line 5, in <module>
        torch.multiprocessing.spawn.ProcessRaisedException:

        -- Process 0 terminated with the following error:
        Traceback (most recent call last):
          File "/usr/lib/python3/torch/multiprocessing/spawn.py", line 90, in _wrap
        AssertionError: world size
        """,
        "AssertionError: world size",
        HEAD,
        "AssertionError: world size",
    ),
    Sample(
        "weights that do not fit: the first line of the message says nothing",
        """\
        Traceback (most recent call last):
          File "train.py", line 3, in <module>
        RuntimeError: Error(s) in loading state_dict for LlamaForCausalLM:
        \tsize mismatch for lm_head.weight: copying a param with shape torch.Size([32000, 64])
        \tsize mismatch for model.embed_tokens.weight: copying a param
        """,
        "RuntimeError: Error(s) in loading state_dict for LlamaForCausalLM: size mismatch for"
        " lm_head.weight: copying a param with shape torch.Size([32000, 64])",
        HEAD,
        "\tsize mismatch for model.embed_tokens.weight: copying a param",
    ),
    Sample(
        "behind a progress bar, in colours",
        " 10%|#         | 1/10 [00:01<00:09]\r 20%|##        | 2/10 [00:02<00:08]"
        "\x1b[31mTraceback (most recent call last):\x1b[0m\n"
        '  File \x1b[35m"train.py"\x1b[0m, line \x1b[35m9\x1b[0m\n'
        "\x1b[1;35mValueError\x1b[0m: \x1b[35mnan\x1b[0m\n",
        "ValueError: nan",
        HEAD,
        "ValueError: nan",
    ),
    Sample(
        "with noise of the interpreter's end",
        """\
        Traceback (most recent call last):
          File "train.py", line 9, in <module>
        FileNotFoundError: [Errno 2] No such file or directory: 'data.jsonl'
        Exception ignored in: <function _ConnectionBase.__del__ at 0x7f>
        Traceback (most recent call last):
          File "/usr/lib/python3.12/multiprocessing/connection.py", line 133, in __del__
        OSError: [Errno 9] Bad file descriptor
        """,
        "FileNotFoundError: [Errno 2] No such file or directory: 'data.jsonl'",
        HEAD,
        "FileNotFoundError: [Errno 2] No such file or directory: 'data.jsonl'",
    ),
    Sample(
        "another thread prints in the middle",
        """\
        Traceback (most recent call last):
          File "train.py", line 9, in <module>
        INFO: saving to disk
        node1:123:456 [0] NCCL INFO comm 0x1 rank 0 nranks 8
            main()
        OSError: [Errno 28] No space left on device
        """,
        "OSError: [Errno 28] No space left on device",
        HEAD,
        "OSError: [Errno 28] No space left on device",
    ),
    Sample(
        "a syntax error",
        """\
          File "train.py", line 3
            def f(:
                  ^
        SyntaxError: invalid syntax
        """,
        "SyntaxError: invalid syntax",
        None,
        None,
    ),
    Sample(
        "a nameless assertion",
        """\
        Traceback (most recent call last):
          File "train.py", line 3, in <module>
            assert loss > 0
                   ^^^^^^^^
        AssertionError
        """,
        "AssertionError",
        HEAD,
        "AssertionError",
    ),
    Sample(
        "an exception group",
        """\
          + Exception Group Traceback (most recent call last):
          |   File "group.py", line 1, in <module>
          | ExceptionGroup: two (2 sub-exceptions)
          +-+---------------- 1 ----------------
            | Traceback (most recent call last):
            |   File "group.py", line 2, in f
            | ValueError: one
            +---------------- 2 ----------------
            | TypeError: two
            +------------------------------------
        """,
        "ValueError: one",
        HEAD,
        "ValueError: one",
    ),
    Sample(
        "a segmentation fault with the stack of faulthandler",
        """\
        loading model
        Fatal Python error: Segmentation fault

        Current thread 0x00007f1c6c7a3740 (most recent call first):
          File "train.py", line 12 in forward
          File "train.py", line 30 in <module>
        """,
        "Fatal Python error: Segmentation fault",
        "Fatal Python error: Segmentation fault",
        '  File "train.py", line 30 in <module>',
    ),
    Sample(
        "a C++ exception",
        """\
        terminate called after throwing an instance of 'std::bad_alloc'
          what():  std::bad_alloc
        Fatal Python error: Aborted
        """,
        "std::bad_alloc: std::bad_alloc",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "Fatal Python error: Aborted",
    ),
    Sample(
        "the NCCL watchdog",
        """\
        [rank0]:[E1121 02:11:09.1 ProcessGroupNCCL.cpp:616] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600012 milliseconds
        [rank0]:[E1121 02:11:10.1 ProcessGroupNCCL.cpp:630] To avoid data inconsistency, we are taking the entire process down.
        terminate called after throwing an instance of 'c10::DistBackendError'
          what():  [PG ID 0 PG GUID 0 Rank 0] Process group watchdog thread terminated
        Fatal Python error: Aborted
        """,
        "[E1121 02:11:09.1 ProcessGroupNCCL.cpp:616] [Rank 0] Watchdog caught collective operation"
        " timeout: WorkNCCL(SeqNum=12, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600012"
        " milliseconds",
        "[E1121 02:11:09.1 ProcessGroupNCCL.cpp:616] [Rank 0] Watchdog caught collective operation"
        " timeout: WorkNCCL(SeqNum=12, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600012"
        " milliseconds",
        "Fatal Python error: Aborted",
    ),
    Sample(
        "a shell that reports a kill",
        "step 5\ntrain.sh: line 3: 12345 Killed                  python train.py\ncleaning up\n",
        "train.sh: line 3: 12345 Killed                  python train.py",
        "train.sh: line 3: 12345 Killed                  python train.py",
        "cleaning up",
    ),
    Sample("no traceback", "starting\nbad option --foo\n\n  \n", "bad option --foo", None, None),
    Sample("nothing at all", "\n\n", "it printed nothing", None, None),
]


def dedent(text: str) -> str:
    return "\n".join(line.removeprefix("        ") for line in text.split("\n"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_the_end_of_a_log_is_told_as(sample: Sample) -> None:
    found = find_error(dedent(sample.log))
    assert found.error == sample.error
    lines = found.traceback.split("\n") if found.traceback else [None]
    assert (lines[0], lines[-1]) == (sample.begins, sample.ends)


def test_a_chain_is_shown_from_its_first_link_and_not_from_before() -> None:
    found = find_error(dedent(SAMPLES[2].log))
    assert found.traceback is not None
    assert found.traceback.count(HEAD) == 2
    assert "transient" not in found.traceback


def test_a_traceback_that_was_survived_does_not_explain_the_end() -> None:
    log = f'{HEAD}\n  File "a.py", line 1\nOSError: transient\n' + "step\n" * 400 + "out of time\n"
    found = find_error(log)
    assert found.error == "out of time"
    assert "transient" in str(found.traceback)


def test_a_crash_long_after_a_traceback_explains_the_end() -> None:
    log = f'{HEAD}\n  File "a.py", line 1\nOSError: transient\n' + "step\n" * 100
    found = find_error(log + "Fatal Python error: Segmentation fault\n")
    assert found.error == "Fatal Python error: Segmentation fault"
    assert "transient" not in str(found.traceback)


def test_a_traceback_cut_off_by_the_kill_tells_its_last_frame() -> None:
    found = find_error(f'{HEAD}\n  File "a.py", line 1, in f\n    g()\n')
    assert found.error == "g()"


def test_a_long_traceback_keeps_its_end() -> None:
    frames = "".join(f'  File "deep.py", line {n}, in f\n    f()\n' for n in range(3000))
    found = find_error(f"{HEAD}\n{frames}RecursionError: maximum recursion depth exceeded\n")
    assert found.traceback is not None
    lines = found.traceback.split("\n")
    assert len(lines) == MAX_LINES
    assert lines[0] == "... 5943 lines left out"
    assert lines[-1] == found.error == "RecursionError: maximum recursion depth exceeded"


def test_a_huge_message_is_cut() -> None:
    found = find_error(f"{HEAD}\n  File 'a'\nValueError: {'x' * 100_000}\n" + "y" * 100_000)
    assert len(str(found.error)) == 500
    assert len(str(found.traceback).encode()) <= MAX_BYTES


PIECES = [HEAD, "  File", "Error: x", "Fatal Python error: x", "  | ", "  +-", "[rank0]: ", "\n"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=9))).map("".join))
def test_whatever_a_log_holds_the_excerpt_is_clean_and_small(text: str) -> None:
    found = find_error(text)
    assert found.error
    for shown in (found.error, found.traceback or ""):
        assert not set(shown) & set("\x1b\x00\r")
        assert len(shown.encode()) <= MAX_BYTES
        assert shown.count("\n") < MAX_LINES


def test_only_the_tail_after_the_offset_is_read(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_bytes(b"ValueError: old\n" + b"\xff\x00 noise\n" * TAIL_BYTES + b"the end\n")
    assert read_last_error(log).error == "the end"
    assert read_last_error(log, offset=log.stat().st_size - 4).error == "end"
    assert read_last_error(log, offset=log.stat().st_size).error == "it printed nothing"
    assert "cannot read" in str(read_last_error(tmp_path / "absent.log").error)


def test_the_traceback_of_this_very_python_is_found() -> None:
    script = (
        "def f():\n try: {}['x']\n except KeyError: raise ValueError('from f\\nsecond line')\nf()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    found = find_error("some output\n" + done.stderr)
    assert found.error == "ValueError: from f"
    assert str(found.traceback).endswith("ValueError: from f\nsecond line")
    assert str(found.traceback).count(HEAD) == 2
