"""What docker, podman, enroot and registries complain about -> what to do about it. Pure.

The texts are those that the programs print; one table each for registries and for disks. A
complaint that is not known is passed on as it is.
"""

from __future__ import annotations

import re

from clusterlm.render import Import

SAID = "clusterlm import: "
"""Before the words of our own script."""
REFUSES = "clusterlm import refuses: "

# first match wins: an authentication error may speak of "not found" further on
_REGISTRY = (
    (
        "login",
        r"no basic auth credentials|401 unauthorized|unauthorized:|authentication required"
        r"|pull access denied|requested access to the resource is denied|may require 'docker login'"
        r"|403 forbidden|returned error code: 40[13]|denied: |insufficient_scope|invalid username",
    ),
    (
        "unknown",
        r"manifest unknown|name unknown|manifest for \S+ not found|: not found\s*$|"
        r"returned error code: 404|repository \S+ not found",
    ),
    ("limit", r"toomanyrequests|429 too many requests|returned error code: 429"),
    ("certificate", r"x509:|certificate signed by unknown|server gave http response to https"),
    ("platform", r"no matching manifest for|no image found in (?:manifest list|image index)"),
    ("short", r"short-name .* did not resolve|short-name resolution"),
    (
        "offline",
        r"no such host|connection refused|i/o timeout|network is unreachable|no route to host"
        r"|handshake timeout|name resolution|deadline exceeded|connection reset|could not resolve"
        r"|connection timed out|request canceled while waiting|proxyconnect|failed to connect",
    ),
)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded|no space on device", re.I)


def registry_host(image: str) -> str:
    """`nvcr.io` of `nvcr.io/nvidia/pytorch:24.08-py3`; Docker Hub's where none is named."""
    first, slash, _ = image.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host else "docker.io"


def kind_of_registry_trouble(text: str) -> str | None:
    """login, unknown, limit, certificate, platform, short, offline, or None for none of them."""
    for kind, pattern in _REGISTRY:
        if re.search(pattern, text, re.IGNORECASE | re.MULTILINE):
            return kind
    return None


def is_disk_full(text: str) -> bool:
    """Whether a program died of a full disk or quota."""
    return _DISK_FULL.search(text) is not None


def pull_trouble(image: str, program: str, text: str) -> str:
    """Why a base cannot be had, and what to do."""
    host = registry_host(image)
    last = last_line(text)
    if is_disk_full(text):
        return f"the disk is full while {program} pulls {image}\n  {last}\n  {free_space(program)}"
    said = {
        "login": f"{host} wants a login for {image}, or there is no such image\n"
        + login_advice(host, program),
        "unknown": f"{host} does not know {image}\n  look at the tags of the repository, and set "
        "`image.base`",
        "limit": f"{host} lets nobody pull so often without a login\n"
        + login_advice(host, program),
        "certificate": f"{host} has a certificate that {program} does not trust\n"
        f"  put the authority's certificate into /etc/docker/certs.d/{host}/ca.crt",
        "platform": f"{image} has no build for this machine's processor",
        "short": f"{program} does not know which registry {image} is of\n"
        f"  name it in `image.base`, such as docker.io/{image}",
        "offline": f"{image} is not here, and {host} cannot be reached\n"
        f"  where there is a network:  {program} pull {image} && "
        f"{program} save {image} -o base.tar\n"
        f"  here:                      {program} load -i base.tar",
    }
    words = said.get(kind_of_registry_trouble(text) or "", f"{program} cannot pull {image}")
    return f"{words}\n  it says: {last}"


def push_trouble(image: str, program: str, text: str) -> str:
    """Why an image cannot be pushed, and what to do."""
    host = registry_host(image)
    kind = kind_of_registry_trouble(text)
    words = f"{program} cannot push {image}"
    if kind in ("login", "limit"):
        words = f"{host} does not let you push {image}\n" + login_advice(host, program)
        words += "\n  logged in already: the account lacks the right to write there"
    elif kind == "offline":
        words = f"{host} cannot be reached, so {image} was not pushed\n  see `image.registry`"
    elif kind == "unknown":
        words = f"{host} has no repository for {image}: make it there, or change `image.registry`"
    elif kind == "certificate":
        words = f"{host} has a certificate that {program} does not trust"
    return f"{words}\n  it says: {last_line(text)}"


def import_trouble(asked: Import, said: list[str]) -> str:
    """Why an import failed: our script's own words, else the program's and what they mean.

    Args:
        asked: what was to be done.
        said: the newest lines of its output.
    """
    for number, line in enumerate(said):
        if line.startswith(REFUSES):
            # the refusal and its advice are the end of the output
            return "\n".join([line.removeprefix(REFUSES), *said[number + 1 :]])
    text = "\n".join(said)
    errors = [re.sub(r"^\[ERROR\] ", "", s) for s in said if re.search(r"error|fatal", s, re.I)]
    lines = [f"{asked.program} could not import {asked.source}: {(errors or said or ['?'])[-1]}"]
    lines += [f"  | {line}" for line in said]
    if "No command specified" in text:
        lines.append("  the image has no CMD: `images rm` it and build it again")
    elif is_disk_full(text):
        lines.append(f"  the disk is full: see `df -h {asked.file.parent} /tmp /var/tmp`")
    elif asked.source.startswith("docker://") and kind_of_registry_trouble(text) == "login":
        lines.append(_import_login(asked))
    return "\n".join(lines)


def _import_login(asked: Import) -> str:
    host = registry_host(asked.source.removeprefix("docker://").replace("#", "/"))
    if asked.program == "apptainer":
        return f"  log in:  apptainer remote login --username USER docker://{host}"
    return (
        f"  enroot has its own logins: write  machine {host} login USER password TOKEN\n"
        "  into ~/.config/enroot/.credentials (mode 600); for nvcr.io USER is $oauthtoken"
    )


def login_advice(host: str, program: str) -> str:
    """How to log in; NVIDIA's registry has a user name that a shell would expand."""
    program = "docker" if program.endswith("docker") else program
    advice = f"  log in:  {program} login {host}"
    if host == "nvcr.io":
        advice += (
            "\n           Username: $oauthtoken   (these very characters)"
            "\n           Password: an API key from https://ngc.nvidia.com/setup/api-key"
        )
    return advice


def free_space(program: str) -> str:
    """How to get room where images are built."""
    if program == "buildah":
        return "make room:  buildah rmi --prune"
    return f"make room:  {program} system df; {program} image prune; clusterlm images gc --keep 2"


def last_line(text: str) -> str:
    """The newest line that is not empty, cut to what a screen holds."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "nothing"
