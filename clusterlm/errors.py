"""Everything that clusterlm raises on purpose.

    ClusterLMError                exit 2; the text is the whole message for the user
    +-- SpecError                 job.yaml: all problems at once, each with its place and line
    +-- DataError                 a source, a record, a tokenizer (file and line in the text)
    |   +-- CacheNotReady         the fingerprint's folder has no READY, or another content
    +-- RunError                  a run: unknown name, name taken, nothing to resume
    +-- ImageError                building, importing or starting a container image
    |   +-- TorchReplaced         a package would put its own torch in place of the base's
    |   +-- ImageNotImported      built, but this machine has no enroot (apptainer) to import it
    +-- SlurmError                Slurm refused, is absent, or did not answer
    |   +-- JobsLeft              a refused submit could not take its other job back
    |   +-- SlurmUnreachable      the controller or the database did not answer: blind, not failed
    |       +-- SendUnclear       whether a job is in the queue is not known yet
    +-- SshError                  a cluster cannot be reached: address, host key, credentials
    |   +-- ConnectionLost        it broke half way: whether something happened there is not known
    |   +-- SshRefused            it was made; trying again is in vain: a full disk, no such file
    +-- WeightsError              a model's files: not there, damaged, of a kind that is not read
    +-- TrainError                the trainer: model, checkpoint, environment
        +-- Fenced                a newer attempt owns the run; this one must not write

A message says where, what was found, what is accepted, and what to do. `cli` alone prints it and
turns it into an exit code.
"""

from __future__ import annotations

from dataclasses import dataclass


class ClusterLMError(Exception):
    """A mistake or a circumstance that the user can act on."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One mistake in a spec.

    Attributes:
        where: dotted place, `data.sources[0].weight`.
        message: what was found, what is accepted.
        line: 1-based line in the YAML file, None when it came from elsewhere.
    """

    where: str
    message: str
    line: int | None = None


class SpecError(ClusterLMError):
    """A job.yaml that cannot be used; holds every problem found, and what is read otherwise."""

    def __init__(self, source: str, problems: list[Problem], notes: tuple[str, ...] = ()) -> None:
        self.source = source
        self.problems = problems
        self.notes = notes
        super().__init__(self._text())

    def _text(self) -> str:
        count = len(self.problems)
        head = f"{self.source}: {count} problem{'s' if count != 1 else ''}"
        width = min(40, max((len(p.where) for p in self.problems), default=0))
        rows = []
        for p in self.problems:
            line = f"  (line {p.line})" if p.line else ""
            rows.append(f"  {p.where:<{width}}  {p.message}{line}")
        return "\n".join([head, *rows])


class DataError(ClusterLMError):
    """A source, record or tokenizer that cannot be used."""


class CacheNotReady(DataError):
    """The prepared data is missing, unfinished, or of another content than the spec asks for."""


class RunError(ClusterLMError):
    """A run that does not exist, exists already, or is in no state for what was asked."""


class ImageError(ClusterLMError):
    """An image cannot be built, imported or found."""


class TorchReplaced(ImageError):
    """A package would replace, or has replaced, the torch that the base image brings."""


class ImageNotImported(ImageError):
    """An image is built; the script that makes one file of it has to be run elsewhere."""


class SlurmError(ClusterLMError):
    """Slurm refused, or is not on this machine."""


class JobsLeft(SlurmError):
    """A submit was refused half way, and the job already sent could not be taken back."""


class SlurmUnreachable(SlurmError):
    """The controller or the accounting database did not answer. Says nothing about any job."""


class SendUnclear(SlurmUnreachable):
    """Whether a job is in the queue is not known yet. The same key again finds it or sends it."""


class SshError(ClusterLMError):
    """No connection to a cluster: address, host key or credentials; nothing was done."""


class ConnectionLost(SshError):
    """A connection broke during a call. What the call did over there has to be looked up."""


class SshRefused(SshError):
    """It is no matter of the connection: a further try would bring the same."""


class WeightsError(ClusterLMError):
    """The files of a model are not there, damaged, or of a kind that is not read."""


class TrainError(ClusterLMError):
    """The trainer cannot start or go on."""


class Fenced(TrainError):
    """A newer attempt holds the lease of this run; an older writer stops here."""
