"""One rank under torchrun, as `clusterlm train` in its rank parent; leaves pid and exit code.

85 goes on as 0, as the rank parent does: torchrun would end the other ranks otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clusterlm.errors import ClusterLMError
from clusterlm.node.codes import EXIT_RESUME
from clusterlm.train.loop import run_training


def main(run_dir: Path) -> int:
    rank = os.environ["RANK"]
    (run_dir / f"pid{rank}").write_text(str(os.getpid()))
    try:
        code = run_training(run_dir)
    except ClusterLMError as error:
        print(error, flush=True)
        code = error.exit_code
    (run_dir / f"code{rank}").write_text(str(code))
    return 0 if code == EXIT_RESUME else code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
