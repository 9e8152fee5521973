"""Lines of a requirements.txt, and which of them an image can be built from.

pip would read options, paths and other files from there; an image is built from what is named, so
only requirements are accepted, in the grammar of `image.pip`. What a file may have beyond that, as
pip-compile and poetry write it: spaces, a marker after `;`, `${NAME}@` for a password in a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from clusterlm.spec.base import PIP_REQ

OPTIONS = {
    "-r": "copy its lines here",
    "--requirement": "copy its lines here",
    "-c": "write the versions here",
    "--constraint": "write the versions here",
    "-e": "build a wheel of it and give its folder as image.wheelhouse",
    "--editable": "build a wheel of it and give its folder as image.wheelhouse",
    "-i": "put PIP_INDEX_URL into image.build_secrets",
    "--index-url": "put PIP_INDEX_URL into image.build_secrets",
    "--extra-index-url": "put PIP_EXTRA_INDEX_URL into image.build_secrets",
    "--trusted-host": "put PIP_TRUSTED_HOST into image.build_secrets",
    "-f": "give the folder as image.wheelhouse",
    "--find-links": "give the folder as image.wheelhouse",
    "--no-index": "give a folder of wheels as image.wheelhouse",
    "--pre": "write the version itself, such as peft==0.18.0rc1",
}
"""What to do instead, for the options that people have in such files."""

_PLAIN = re.compile(PIP_REQ.removeprefix("^").removesuffix("$"))
_MARKER = re.compile(r"[A-Za-z0-9_.'\"<>=!~() ,-]{1,256}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]*@")
# ${TOKEN}@, me:${TOKEN}@, ${TOKEN}:x-oauth-basic@
_USER_FROM_SECRETS = re.compile(rf"([A-Za-z0-9._-]+:)?{_VARIABLE.pattern}(:x-oauth-basic)?@")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line that says something; comments off, continued lines joined."""
    start, whole = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        start = start if whole else number
        whole += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        bare = re.sub(r"(^|\s)#.*$", "", whole).strip()
        if bare:
            yield start, bare
        whole = ""


def without_spaces(line: str) -> str:
    """`peft >= 0.17 , < 1 ; marker` as `peft>=0.17,<1`: what `image.pip` would say."""
    return re.sub(r"\s*([=<>!~,@\[\]]+)\s*", r"\1", line.partition(";")[0].strip())


def reason_to_refuse(line: str, secrets: list[str]) -> str | None:
    """Why a line of a file is not accepted, with what to do; None when it is fine.

    Args:
        line: as `lines_of` gives it.
        secrets: names of variables that the build sees; they may stand in a URL as `${NAME}`.
    """
    if line.startswith("-"):
        option = re.split(r"[\s=]", line)[0]
        # pip reads `-rother.txt`, too
        known = option if option.startswith("--") else option[:2]
        instead = OPTIONS.get(known, "only requirements are read; leave it out")
        return f"{known} is an option of pip: {instead}"
    if re.search(r"\s--hash=", line):
        return "--hash: pip would want one for clusterlm's own packages, too; leave the hashes out"
    if re.search(r"\s--[a-z]", line):
        return "has an option of pip; only the requirement is read"
    if "file:" in line or line.startswith((".", "/", "~")):
        return "a file is not in the image: put its wheel into image.wheelhouse and write its name"
    # `;` parts the marker; a URL of the grammar has none
    wish, _, marker = line.partition(";")
    unknown = [name for name in _VARIABLE.findall(wish) if name not in secrets]
    if unknown:
        return f"${{{unknown[0]}}} is given to the build only if image.build_secrets names it"
    user = _USER_IN_URL.search(wish)
    if user and not _USER_FROM_SECRETS.fullmatch(user[0]):
        return "has a password in its URL: write ${NAME} and put NAME into image.build_secrets"
    if not _PLAIN.fullmatch(without_spaces(_USER_IN_URL.sub("", wish))):
        return "is no requirement such as peft, peft>=0.17 or name@git+https://host/path@commit"
    if marker and not _MARKER.fullmatch(marker.strip()):
        return 'has a marker that is not like python_version < "3.11"'
    return None


def name_of(requirement: str) -> str:
    """The package, as pip compares names: `Flash_Attn[x]==2` is `flash-attn`."""
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def specifiers_of(requirement: str) -> str:
    """`>=0.17,<1` of `peft[x] >= 0.17, < 1 ; marker`; empty for a bare name or a URL."""
    plain = without_spaces(requirement)
    rest = re.sub(r"^[A-Za-z0-9._-]+(\[[^\]]*\])?", "", plain)
    return "" if rest.startswith("@") else rest
