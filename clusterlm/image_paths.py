"""Where an image lies, by the digest of its recipe. Knows names and nothing of their content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clusterlm.paths import own_folder


def images_dir() -> Path:
    """`$CLUSTERLM_IMAGES_DIR`, else the XDG cache folder; every node must see it."""
    return own_folder("CLUSTERLM_IMAGES_DIR", "XDG_CACHE_HOME", ".cache", "images")


@dataclass(frozen=True)
class ImagePaths:
    """One image, by the digest of its recipe; shared by every run that asks for the same."""

    recipe: str
    """Hex digest of everything that the image is made from."""

    @property
    def short(self) -> str:
        return self.recipe[:16]

    @property
    def tag(self) -> str:
        """Name in the local docker or podman."""
        return f"clusterlm:{self.short}"

    @property
    def context(self) -> Path:
        """Folder with the Dockerfile and what it copies."""
        return images_dir() / "build" / self.short

    @property
    def record(self) -> Path:
        """What was built: written last, see `cluster/images/record.py`."""
        return images_dir() / f"{self.short}.json"

    @property
    def squashfs(self) -> Path:
        """For enroot and pyxis."""
        return images_dir() / f"{self.short}.sqsh"

    @property
    def sif(self) -> Path:
        """For apptainer."""
        return images_dir() / f"{self.short}.sif"

    @property
    def lock(self) -> Path:
        return images_dir() / f"{self.short}.lock"
