"""The base of every section: strict, frozen, documented under each field."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Spec(BaseModel):
    """A section of job.yaml. Unknown keys are errors; the docstring under a field is its help."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


# Grammars: whatever reaches an #SBATCH line, a shell or a Dockerfile is matched before it is used.
# shlex.quote does not protect a comment line. pydantic matches in Rust, where `$` is the very end of
# the text: a trailing newline does not pass (in Python it would, so use re.fullmatch there).
RUN_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
SLURM_WORD = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}$"
NODE_EXPR = r"^[A-Za-z0-9][A-Za-z0-9._,\[\]-]{0,1023}$"
CONSTRAINT = r"^[A-Za-z0-9][A-Za-z0-9._&|*\[\]()-]{0,255}$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
SBATCH_EXTRA = r"^--[a-z][a-z0-9-]*(=[A-Za-z0-9._:/,@%+=-]{1,255})?$"

RunName = Annotated[str, Field(pattern=RUN_NAME)]
SlurmWord = Annotated[str, Field(pattern=SLURM_WORD)]
EnvName = Annotated[str, Field(pattern=ENV_NAME)]
