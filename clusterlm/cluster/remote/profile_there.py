"""A profile as it is written to its cluster: that of the machine itself, every path absolute."""

from __future__ import annotations

import hashlib
import json

from clusterlm.spec.profile import Profile

_OF_THE_CONNECTION = {"host", "user", "port", "transport"}
_FOLDERS = ("folder", "runs_dir", "cache_dir", "images_dir", "python")


def profile_path(folder: str, name: str) -> str:
    """Where it lies there; profiles that share a folder have a file each."""
    return f"{folder}/profiles/{name}/clusters.yaml"


def profile_mark(profile: Profile) -> str:
    """First line of the file: whether it is still this profile."""
    text = profile.model_dump_json(exclude=_OF_THE_CONNECTION, exclude_none=True)
    return f"# profile {hashlib.sha256(text.encode()).hexdigest()}"


def profile_text(name: str, profile: Profile, folder: str, home: str) -> str:
    """The file. JSON is YAML.

    Args:
        name: of the profile.
        profile: as it stands here.
        folder: its folder there, absolute.
        home: what `~` is there.
    """
    fields = profile.model_dump(
        mode="json", exclude=_OF_THE_CONNECTION, exclude_none=True, exclude_defaults=True
    )
    for key in _FOLDERS:
        text = fields.get(key)
        if text == "~" or (text and text.startswith("~/")):
            fields[key] = home + text[1:]
    fields["folder"] = folder
    # the login shell has run these before clusterlm starts
    fields.pop("setup", None)
    return f"{profile_mark(profile)}\n{json.dumps({'clusters': {name: fields}})}\n"
