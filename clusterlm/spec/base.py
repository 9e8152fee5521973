"""The base of every section, and the grammars of what reaches Slurm, a shell or a Dockerfile.

Sections are strict (true is no number, "4" is no whole number), frozen, and documented under each
field. The docstrings are read from the source when `docs/job-yaml.md` is made, not at start-up:
pydantic would parse every source file for them, 30 ms of a command that takes 100. For the same
reason the validators are built once, for the whole job, when the first job is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Spec(BaseModel):
    """A section of job.yaml. Unknown keys are errors; the docstring under a field is its help."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        defer_build=True,
    )


# A section that is left out has the defaults of its keys. An instance as default would need a
# validator of its own at import; `{}` goes through the one of the job.
LEFT_OUT: Any = Field(default_factory=dict, validate_default=True)

NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


@contextmanager
def without_plugins() -> Iterator[None]:
    """Build validators without looking for pydantic's plugins.

    Before its first validator pydantic asks every installed distribution for plugins: 15 ms of a
    command that takes 100, and far more from a network file system. No section wants one.
    """
    before = os.environ.get(NO_PLUGINS)
    os.environ[NO_PLUGINS] = "__all__"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_PLUGINS]
        else:
            os.environ[NO_PLUGINS] = before


# Grammars: whatever reaches an #SBATCH line, a shell or a Dockerfile is matched before it is used.
# shlex.quote does not protect a comment line. pydantic matches in Rust, where `$` is the very end
# of the text: a trailing newline does not pass (in Python it would, so use re.fullmatch there).
RUN_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
SLURM_WORD = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}$"
NODE_EXPR = r"^[A-Za-z0-9][A-Za-z0-9._,\[\]-]{0,1023}$"
CONSTRAINT = r"^[A-Za-z0-9(\[][A-Za-z0-9._&|*\[\]()-]{0,255}$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
SBATCH_EXTRA = r"^--[a-z][a-z0-9-]*(=[A-Za-z0-9._:/,@%+=-]{1,255})?$"
REVISION = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"
# Class, package.module.Class or path.py:Class
CLASS_PATH = r"^([^\p{Cc}:]+:)?[A-Za-z_][A-Za-z0-9_]{0,99}(\.[A-Za-z_][A-Za-z0-9_]{0,99}){0,20}$"
MODULE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.*-]{0,255}$"
# one line, without control characters and without the marks that turn the direction of writing
ONE_LINE = r"^[^\p{Cc}\p{Zl}\p{Zp}\x{202A}-\x{202E}\x{2066}-\x{2069}]+$"
ENV_VALUE = r"^[^\p{Cc}\x{202A}-\x{202E}\x{2066}-\x{2069}]*$"
ARGUMENT = r"^[^\x00]+$"
# a host may have a port, a tag capital letters
_IMAGE_HOST = r"[a-z0-9][a-z0-9.-]{0,127}(:[0-9]{1,5})?"
_IMAGE_NAME = r"[a-z0-9][a-z0-9._-]{0,127}"
IMAGE_REF = (
    rf"^({_IMAGE_HOST}/)?{_IMAGE_NAME}(/{_IMAGE_NAME}){{0,8}}"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)
REPOSITORY = rf"^{_IMAGE_HOST}(/{_IMAGE_NAME}){{1,8}}$"
# `apt-get install git-` would remove git
APT_NAME = (
    r"^[a-z0-9]([a-z0-9.+-]{0,126}[a-z0-9+])?"
    r"(=[0-9][A-Za-z0-9.+:~-]{0,63}[A-Za-z0-9+~]|=[0-9])?$"
)
# a colon parts the fields of a mount, a comma the mounts, a space the fields of an fstab: enroot
# writes one. No path that reaches a runtime has any of them, nor what a shell would read.
# (no length here: counting letters of every script makes a pattern of megabytes)
_PATH = r"/[\p{L}\p{N}._/@+=-]*"
MOUNT = rf"^{_PATH}(:{_PATH}(:r[ow])?)?$"
IMAGE_FILE = rf"^{_PATH}$"
_PIP_VERSION = r"(===|==|!=|<=|>=|~=|<|>)[A-Za-z0-9][A-Za-z0-9.*+!_-]{0,63}"
# no user in the host: a password would stay in a layer
PIP_REQ = (
    r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?(\[[A-Za-z0-9,._-]{1,64}\])?"
    rf"(({_PIP_VERSION}(,{_PIP_VERSION}){{0,9}})|"
    r" ?@ ?git\+https://[A-Za-z0-9][A-Za-z0-9.-]{0,127}(:[0-9]{1,5})?"
    r"(/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}){1,8}"
    r"(@[A-Za-z0-9][A-Za-z0-9._/-]{0,127})?(#subdirectory=[A-Za-z0-9][A-Za-z0-9._/-]{0,127})?)?$"
)
# ENV in a Dockerfile fills variables in and takes quotes off
IMAGE_ENV_VALUE = r"^[^\p{Cc}\p{Zl}\p{Zp}\x{202A}-\x{202E}\x{2066}-\x{2069}$`\"'\\]*$"

# nothing that ssh could take for an option, a user or a command
HOST_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$"
# absolute, or below the home; or, of a program, one word
REMOTE_FOLDER = r"^(~(/[\p{L}\p{N}._@+=-]+)*|(/[\p{L}\p{N}._@+=-]+)+|[A-Za-z0-9][A-Za-z0-9._-]*)$"

SPLIT = r"^[A-Za-z0-9_.-]*(\[-?[0-9]*%?:-?[0-9]*%?\])?$"
HUB_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$"
CONVERTER = r"^[^\p{Cc}:]+(:[A-Za-z_][A-Za-z0-9_]*)?$"

GRAMMARS = {
    RUN_NAME: "only a-z 0-9 . _ -, beginning with a letter or digit, at most 64 characters",
    SLURM_WORD: "only letters, digits and . _ @ : + -, at most 128 characters",
    NODE_EXPR: "node names as Slurm writes them, such as node[3,7-9],gpu12",
    CONSTRAINT: "node features as in --constraint, such as a100&nvlink, without spaces",
    ENV_NAME: "only letters, digits and _, not beginning with a digit, at most 128 characters",
    SBATCH_EXTRA: "one long option such as --comment=team-a, without spaces or quotes",
    REVISION: "a commit, tag or branch: only letters, digits and . _ / -",
    CLASS_PATH: "a class of transformers such as LlamaForCausalLM, package.module.Class, or "
    "my_model.py:Class beside the YAML",
    MODULE_NAME: "a layer name such as q_proj: only letters, digits and . _ * -",
    ONE_LINE: "one line of text without control characters, not empty",
    ENV_VALUE: "one line of text without control characters",
    ARGUMENT: "text without NUL characters, not empty",
    IMAGE_REF: "an image such as nvcr.io/nvidia/pytorch:24.08-py3 or host:5000/a/b@sha256:...",
    REPOSITORY: "a repository such as registry.example/team/clusterlm, without a tag",
    APT_NAME: "a Debian package such as git-lfs or git=1:2.39.2",
    MOUNT: "an absolute folder such as /data, /data:/inside or /data:/inside:ro; "
    "letters, digits and . _ @ + = - in names",
    IMAGE_FILE: "a path; letters, digits and . _ / @ + = - in it",
    PIP_REQ: "a requirement such as peft, transformers==4.57.6 or name@git+https://host/path@commit;"
    " no spaces, options, files or passwords",
    HOST_NAME: "a host such as login.example.org or a name of ssh_config, without a user",
    REMOTE_FOLDER: "an absolute path, or one that begins with ~/; letters, digits and . _ @ + = - "
    "in names",
    SPLIT: "a split and which of its rows: train, train[:1000], train[10%:20%] or [:1000]",
    HUB_NAME: "the name of something on the hub, such as owner/name",
    CONVERTER: "conv.py:function beside the YAML, or package.module.function",
    IMAGE_ENV_VALUE: "one line of text as it is to stand in the image, without $ ` quotes and \\",
}
"""In words, for the message that refuses a value."""

RunName = Annotated[str, Field(pattern=RUN_NAME)]
SlurmWord = Annotated[str, Field(pattern=SLURM_WORD)]
EnvName = Annotated[str, Field(pattern=ENV_NAME)]
EnvValue = Annotated[str, Field(pattern=ENV_VALUE, max_length=32768)]
ImageEnvValue = Annotated[str, Field(pattern=IMAGE_ENV_VALUE, max_length=4096)]
Line = Annotated[str, Field(pattern=ONE_LINE, max_length=4096)]
Argument = Annotated[str, Field(pattern=ARGUMENT, max_length=32768)]
Revision = Annotated[str, Field(pattern=REVISION)]
