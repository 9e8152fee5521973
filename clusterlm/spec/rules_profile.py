"""What the keys of a profile must be to each other; read after each is right by itself."""

from __future__ import annotations

from collections.abc import Iterator

from clusterlm.errors import Problem
from clusterlm.spec import variables
from clusterlm.spec.profile import Profile
from clusterlm.spec.sbatch_options import refusals

_FOLDERS = ("folder", "runs_dir", "cache_dir", "images_dir")


def problems_in(profile: Profile) -> Iterator[Problem]:
    """Every mistake between the keys of one profile, at its place in the profile."""
    yield from _of_the_connection(profile)
    yield from _of_folders(profile)
    yield from _of_env(profile)
    for number, message in refusals((profile.resources and profile.resources.extra) or ()):
        yield Problem(f"resources.extra[{number}]", message)
    if profile.runtime == "docker":
        message = "docker is for cluster: local; take pyxis, enroot, apptainer or none"
        yield Problem("runtime", message)
    for number, mount in enumerate(profile.mounts):
        if ".." in mount.split("/"):
            yield Problem(f"mounts[{number}]", f"{mount} goes up by ..; write where it leads")


def _of_the_connection(profile: Profile) -> Iterator[Problem]:
    if profile.host is not None:
        if profile.folder is None:
            message = "is missing: a folder there that every node sees, such as ~/clusterlm"
            yield Problem("folder", message)
        return
    asked = {"user": profile.user, "port": profile.port}
    asked["transport"] = None if profile.transport == "auto" else profile.transport
    for key, value in asked.items():
        if value is not None:
            message = "means nothing without `host`: this machine is taken for the login node"
            yield Problem(key, message)


def _of_folders(profile: Profile) -> Iterator[Problem]:
    for key in _FOLDERS:
        path = getattr(profile, key)
        if path is None:
            continue
        if not path.startswith(("/", "~/")):
            yield Problem(key, f'"{path}" is no absolute path; write /folder or ~/folder')
        elif ".." in path.split("/"):
            yield Problem(key, f'"{path}" goes up by ..; write where it leads')
        elif not path.isascii():
            # it stands in #SBATCH lines
            yield Problem(key, f'"{path}" has letters that no #SBATCH line can hold')


def _of_env(profile: Profile) -> Iterator[Problem]:
    for name, value in profile.env.items():
        if variables.is_launchers(name):
            yield Problem(f"env.{name}", "is given by the launcher; choose another name")
        elif variables.holds_secret(name, value):
            message = "looks like a secret, and env is written into scripts"
            yield Problem(f"env.{name}", f"{message}; name it in the job: secrets: [{name}]")
