"""One rank under torchrun, as `clusterlm train` in its rank parent; leaves pid and exit code.

85 goes on as 0, as the rank parent does: torchrun would end the other ranks otherwise.
With CLUSTERLM_TEST_WATCH it also leaves what it trained on, and may hang in the middle of a step.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from clusterlm.errors import ClusterLMError
from clusterlm.node.codes import EXIT_RESUME
from clusterlm.train.loop import run_training


def main(run_dir: Path) -> int:
    rank = os.environ["RANK"]
    (run_dir / f"pid{rank}").write_text(str(os.getpid()))
    if os.environ.get("CLUSTERLM_TEST_WATCH"):
        watch_steps(run_dir, rank, hang_in=int(os.environ.get("CLUSTERLM_TEST_HANG_IN", 0)))
    try:
        code = run_training(run_dir)
    except ClusterLMError as error:
        print(error, flush=True)
        code = error.exit_code
    (run_dir / f"code{rank}").write_text(str(code))
    return 0 if code == EXIT_RESUME else code


def watch_steps(run_dir: Path, rank: str, *, hang_in: int) -> None:
    """Write a line for each block that is trained: step and a hash of its tokens.

    In step `hang_in`, after the first backward pass, it writes a file and sleeps to be killed.
    """
    from clusterlm.train.trainer import BlockTrainer

    train = BlockTrainer.training_step

    def watched(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        step = self.state.global_step + 1
        with (run_dir / f"seen{rank}").open("a") as file:
            for row in inputs["input_ids"]:
                digest = hashlib.sha256(row.to("cpu").int().numpy().tobytes()).hexdigest()
                file.write(json.dumps([step, digest[:16]]) + "\n")
        loss = train(self, model, inputs, *more, **named)
        if step == hang_in:
            (run_dir / f"hangs{rank}").touch()
            time.sleep(600)
        return loss

    BlockTrainer.training_step = watched


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
