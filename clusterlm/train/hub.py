"""Can the hub be reached from here? Its client tries for a minute before it says that it cannot."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

HUB = "https://huggingface.co"
WAIT_S = 5.0


def hub_answers(environ: Mapping[str, str]) -> bool:
    """Whether something listens at the hub's address; behind a proxy: that is taken for granted."""
    if environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if getproxies():
        return True
    place = urlsplit(environ.get("HF_ENDPOINT") or HUB)
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        with socket.create_connection((place.hostname or "", port), timeout=WAIT_S):
            return True
    except OSError:
        return False


def is_out_of_reach(name: str) -> bool:
    """Whether a model is one of the hub, and the hub does not answer: only its cache is left."""
    return not Path(name).is_dir() and not hub_answers(os.environ)


def how_to_fetch(name: str) -> str:
    """What to do where there is no network."""
    return (
        f"the hub does not answer from here, and {name} is not whole in its local cache; where "
        f"there is a network: hf download {name} --local-dir FOLDER, then give FOLDER in its place"
    )
