"""Asks the clusterlm of a cluster: the very code that runs here, with the folders of its profile.

Every call looks, in the same round trip, whether that installation and this profile are there;
where one is not, nothing runs: it is installed, with a line for the user, and the call made again.
What the other side prints reaches a terminal only after it was made safe.
"""

from __future__ import annotations

import io
import json
import posixpath
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, TypeVar

from clusterlm.cluster.host import Completed
from clusterlm.cluster.log_text import readable
from clusterlm.cluster.remote.answer_json import last_json
from clusterlm.cluster.remote.bootstrap import (
    Installed,
    bootstrap,
    ready_text,
    software_name,
)
from clusterlm.cluster.remote.line_sink import LineSink
from clusterlm.cluster.remote.profile_there import profile_mark, profile_path
from clusterlm.cluster.ssh.transport import Transport
from clusterlm.errors import ClusterLMError, ConnectionLost, SshError, SshRefused
from clusterlm.spec.profile import Profile

ANSWER_TIMEOUT_S = 120.0
PERSIST_S = 60.0
"""How long a broken connection is made anew before the user is asked to."""
NOT_INSTALLED = 97
_NOT_INSTALLED_WORD = "clusterlm-is-not-there"

# The profile's folders may begin with ~. Nothing of the login shell may come before our own
# modules, and everything that is made is private.
_RUN = r"""
home() { case $1 in "~"|"~/"*) printf %s "$HOME${1#"~"}";; *) printf %s "$1";; esac; }
folder=$(home "$1")
software=$folder/software/$2
[ "$(cat "$software/READY" 2>/dev/null)" = "$3" ] &&
[ "$(head -n 1 "$folder/$4" 2>/dev/null)" = "$5" ] || { echo clusterlm-is-not-there >&2; exit 97; }
export CLUSTERLM_CONFIG="$folder/$4"
CLUSTERLM_RUNS_DIR=$(home "$6") CLUSTERLM_CACHE_DIR=$(home "$7") CLUSTERLM_IMAGES_DIR=$(home "$8")
export CLUSTERLM_RUNS_DIR CLUSTERLM_CACHE_DIR CLUSTERLM_IMAGES_DIR
[ -z "$9" ] || export CLUSTERLM_CODE_STATE="$9"
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP
export PYTHONUTF8=1 PYTHONUNBUFFERED=1
umask 077
[ "${10}" = apart ] || exec 2>&1
shift 10
exec "$software/bin/python" -m "$@"
"""

_DOING = {
    "look": "a look at which paths are there",
    "missing": "a look at what is there already",
    "take": "the sending of files",
    "assemble": "the putting together of files",
    "keep": "the sending of what is known of the code",
    "listing": "a look at the files of the run",
}

# what is used of the answers of `there.py`
_ANSWERS: dict[str, dict[str, type]] = {
    "look": {"found": dict},
    "missing": {"missing": list, "free_bytes": int},
    "assemble": {"path": str, "repaired": list},
    "keep": {"path": str},
    "listing": {"files": dict},
}

_T = TypeVar("_T")


@dataclass
class Remote:
    """One cluster.

    Attributes:
        name: of the profile.
        profile: where and how.
        transport: the connection.
        tell: gets a line when something takes its time, or was done again.
    """

    name: str
    profile: Profile
    transport: Transport
    tell: Callable[[str], None]
    has_answered: bool = False
    """In this process: what fails from then on is a network that may come back."""

    @cached_property
    def installed(self) -> Installed:
        """The clusterlm there; installed now if it is not there."""
        return self.persist(self._bootstrap)

    @property
    def folder(self) -> str:
        return self.installed.folder

    def persist(self, action: Callable[[], _T], *, for_s: float = PERSIST_S) -> _T:
        """Do what may be done twice again while the connection breaks; see `persist` below."""
        return persist(action, tell=self.tell, for_s=for_s, has_answered=lambda: self.has_answered)

    def ask(
        self,
        words: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
        is_repeatable: bool = True,
        code_state: str = "",
    ) -> Completed:
        """Run `clusterlm WORDS` there; its outputs apart.

        Args:
            words: the command and its arguments.
            stdin: what it reads.
            timeout_s: for an answer.
            is_repeatable: doing it twice does no harm, so a broken connection is made anew.
            code_state: file there with what is known of the code, for lock.json.

        Raises:
            SshError: no connection.
            ConnectionLost: whether it was done is not known.
        """
        return self._run(
            ["clusterlm", *words],
            stdin,
            timeout_s,
            is_repeatable,
            code_state,
            doing=f"`clusterlm {words[0]}`",
        )

    def there(self, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        """Let `there.py` do one thing; gives its answer.

        Raises:
            ClusterLMError: it refused, in its own words.
        """
        words = ["clusterlm.cluster.remote.there", verb, self.folder]
        done = self._run(
            words,
            json.dumps(request).encode(),
            ANSWER_TIMEOUT_S * 5,
            True,
            "",
            doing=_DOING[verb],
        )
        answer = self._answer(done)
        for key, kind in _ANSWERS[verb].items():
            if not isinstance(answer.get(key), kind):
                raise SshRefused(f"{self.name}: what came back of {_DOING[verb]} is no answer")
        return answer

    def take(self, source: BinaryIO) -> None:
        """Send contents to the store there, as `there.take` reads them."""
        argv = self._argv(["clusterlm.cluster.remote.there", "take", self.folder], "apart", "")
        sink = io.BytesIO()
        done = self.transport.pipe(argv, source=source, sink=sink, doing=_DOING["take"])
        self._answer(Completed(done.argv, done.code, sink.getvalue().decode(), done.err))

    def live(
        self,
        words: Sequence[str],
        each: Callable[[str], None],
        *,
        stdin: bytes = b"",
        outputs: str = "together",
        code_state: str = "",
    ) -> Completed:
        """Run `clusterlm WORDS` there, however long; `each` gets its lines as they come.

        Raises:
            ConnectionLost: it broke on the way; whether it goes on there is not known.
        """
        argv = self._argv(["clusterlm", *words], outputs, code_state)
        for is_second in (False, True):
            lines = LineSink(lambda raw: self._line(raw, each))
            done = self.transport.pipe(
                argv,
                source=io.BytesIO(stdin),
                sink=lines.as_file(),
                doing=f"`clusterlm {words[0]}`",
            )
            self.has_answered = True
            lines.finish()
            if done.code != NOT_INSTALLED or is_second:
                break
            self._install()
        return done

    def _line(self, raw: bytes, each: Callable[[str], None]) -> None:
        text = readable(raw)
        if text != _NOT_INSTALLED_WORD:
            each(text)

    def _run(
        self,
        words: list[str],
        stdin: bytes | None,
        timeout_s: float,
        is_repeatable: bool,
        code_state: str,
        doing: str,
    ) -> Completed:
        argv = self._argv(words, "apart", code_state)

        def once() -> Completed:
            done = self.transport.run(argv, stdin=stdin, timeout_s=timeout_s, doing=doing)
            self.has_answered = True
            if done.code is None:
                raise ConnectionLost(f"{self.name} gave no answer in {timeout_s:.0f} s")
            return done

        done = self.persist(once) if is_repeatable else once()
        if done.code == NOT_INSTALLED and _NOT_INSTALLED_WORD in done.err:
            self._install()
            done = self.persist(once) if is_repeatable else once()
        return done

    def _install(self) -> None:
        # whatever was found before in this process has gone
        self.__dict__["installed"] = self.persist(self._bootstrap)

    def _bootstrap(self) -> Installed:
        return bootstrap(
            self.transport, self.name, self.profile, tell=self.tell, answered=self._note_answer
        )

    def _note_answer(self) -> None:
        self.has_answered = True

    def _argv(self, words: list[str], outputs: str, code_state: str) -> list[str]:
        profile = self.profile
        folder = profile.folder or ""
        folders = [
            profile.runs_dir or posixpath.join(folder, "runs"),
            profile.cache_dir or posixpath.join(folder, "cache"),
            profile.images_dir or posixpath.join(folder, "images"),
        ]
        marks = [software_name(profile), ready_text(profile)]
        marks += [profile_path(".", self.name), profile_mark(profile)]
        own = [folder, *marks, *folders, code_state, outputs]
        return ["sh", "-c", _RUN, "sh", *own, *words]

    def refusal(self, done: Completed) -> str:
        """Why a command there has failed, in its own words."""
        words = [readable(line.encode()) for line in done.err.splitlines()]
        text = "\n".join(words).removeprefix("clusterlm: ")
        return f"{self.name}: {text or f'exit code {done.code}'}"

    def _answer(self, done: Completed) -> dict[str, Any]:
        if done.code:
            raise ClusterLMError(self.refusal(done))
        answer = last_json(done.out.splitlines())
        if not isinstance(answer, dict):
            raise SshRefused(f"{self.name}: what came back is no answer: {done.out[:200]!r}")
        return answer


def persist(
    action: Callable[[], _T],
    *,
    tell: Callable[[str], None],
    for_s: float = PERSIST_S,
    has_answered: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> _T:
    """Do it again while the connection breaks; one that cannot be made at first is an error.

    Args:
        action: may be done twice.
        tell: gets a line before each further try.
        for_s: how long it is tried.
        has_answered: the other side has been reached before: a connection that cannot be made is
            one that has broken.
        sleep: between tries.
        clock: for `for_s`.

    Raises:
        SshError: it cannot be made; or no more.
        ConnectionLost: it has been broken for `for_s`.
    """
    began, wait, is_first = clock(), 1.0, True
    while True:
        try:
            return action()
        except SshRefused:
            raise
        except SshError as error:
            is_lost = isinstance(error, ConnectionLost)
            if (is_first and not is_lost and not has_answered()) or clock() - began + wait > for_s:
                raise
            tell(f"{error}; trying again in {wait:.0f} s")
            sleep(wait)
            wait, is_first = min(2 * wait, 15.0), False
