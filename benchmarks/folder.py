"""Where the benchmarks keep what is made once: `.bench/` beside the code, ignored by git."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCH = Path(os.environ.get("CLUSTERLM_BENCH_DIR", ROOT / ".bench"))
