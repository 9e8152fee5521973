"""The container: what is built on top of which base."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clusterlm.spec.base import APT_NAME, IMAGE_REF, PIP_REQ, Spec


class Image(Spec):
    """Leave the section out to run in the current Python."""

    base: Annotated[str, Field(pattern=IMAGE_REF)] = "nvcr.io/nvidia/pytorch:24.08-py3"
    """Image to build on."""
    apt: list[Annotated[str, Field(pattern=APT_NAME)]] = []
    """Debian packages to add."""
    pip: list[Annotated[str, Field(pattern=PIP_REQ)]] = []
    """Python packages to add; never torch."""
    runtime: Literal["pyxis", "enroot", "docker", "none"] = "pyxis"
    """What starts the container on a node."""
