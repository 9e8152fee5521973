"""The DeepSpeed JSON of a well-known page about training on The Pile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PILE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "importing" / "inputs" / "ds_config.json").read_text("utf-8")
)
