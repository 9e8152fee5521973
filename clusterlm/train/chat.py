"""A conversation at the terminal with a model; or one answer to one prompt.

    > hello
    Hello! ...                  Ctrl-C ends the answer, not the chat
    > /reset                    lines that begin with / are for the chat itself; /help lists them

Reading and writing come in as functions, so that the loop needs no terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clusterlm.errors import TrainError
from clusterlm.spec.wording import did_you_mean, printable
from clusterlm.train.answer import Answerer
from clusterlm.train.history import ASSISTANT, USER, History
from clusterlm.train.terminal import as_text

Write = Callable[[str], None]
ReadLine = Callable[[], str]
"""Gives a line without its end.

Raises:
    EOFError: there are no more.
"""

HELP = """  /reset                    forget the conversation, keep the system prompt
  /system TEXT              another system prompt; without TEXT none
  /history                  what the model is shown
  /save FILE                append the conversation to FILE as one line of JSON
  /function_response TEXT   what a function that the model called has given back
  /quit                     end; so does Ctrl-D. Ctrl-C ends an answer."""
FUNCTION_ROLES = ("function_response", "tool")
PLAIN = "this model has no chat template: each line is continued as plain text"


@dataclass
class Chat:
    """A conversation in progress.

    Attributes:
        answerer: the model.
        history: what was said.
        write: shows text as it is.
    """

    answerer: Answerer
    history: History
    write: Write

    def run(self, read_line: ReadLine) -> None:
        """Talk until /quit or the end of the input."""
        if not self.answerer.has_template:
            self.write(f"{PLAIN}\n")
        while True:
            try:
                line = as_text(read_line()).strip()
            except EOFError:
                self.write("\n")
                return
            except KeyboardInterrupt:
                self.write("\nCtrl-D or /quit ends the chat\n")
                continue
            if line == "/quit":
                return
            try:
                self.take(line)
            # a mistake in one line must not cost the conversation
            except TrainError as error:
                self.write(f"{error}\n")

    def take(self, line: str) -> None:
        """One line: a command, or something said to the model.

        Raises:
            TrainError: it cannot be answered; the conversation is as before.
        """
        if not line:
            return
        if line.startswith("/"):
            self._command(line)
        else:
            self.say(USER, line)

    def say(self, role: str, text: str) -> str:
        """Say something in a role and write the answer as it comes.

        Raises:
            TrainError: it cannot be answered; the conversation is as before.
        """
        if not self.answerer.has_template:
            return self._show(self.answerer.encode_text(text))
        before = list(self.history.messages)
        self.history.add(role, text)
        try:
            answer = self._show(self.answerer.encode_history(self.history))
        except TrainError:
            self.history.messages = before
            raise
        # also one that was cut short: the person has read it
        self.history.add(ASSISTANT, answer)
        return answer

    def _show(self, ids: object) -> str:
        said: list[str] = []
        pieces = self.answerer.answer(ids)  # type: ignore[arg-type]
        try:
            for piece in pieces:
                said.append(piece)
                self.write(piece)
        except KeyboardInterrupt:
            self.write(" ...")
        finally:
            pieces.close()  # type: ignore[attr-defined]
            self.write("\n")
        return "".join(said).strip()

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/system": self._set_system,
            "/history": self._show_history,
            "/save": self._save,
            "/function_response": self._respond,
            "/help": lambda _: self.write(f"{HELP}\n"),
        }
        if name not in commands:
            raise TrainError(
                f"no command {printable(name)}; {did_you_mean(name, [*commands, '/quit'])}"
            )
        commands[name](rest)

    def _reset(self, _: str) -> None:
        self.history.reset()
        self.write("the conversation is forgotten\n")

    def _set_system(self, text: str) -> None:
        if not self.answerer.has_template:
            raise TrainError("a model without a chat template has no system prompt")
        before, self.history.system = self.history.system, text or None
        try:
            self.answerer.encode_history(History(system=text or None, messages=_PROBE))
        except TrainError:
            self.history.system = before
            raise
        self.write(f"system prompt: {text}\n" if text else "no system prompt\n")

    def _show_history(self, _: str) -> None:
        lines = [f"{message['role']}: {message['content']}" for message in self.history.shown()]
        self.write("\n".join(lines or ["nothing was said yet"]) + "\n")

    def _save(self, name: str) -> None:
        if not name:
            raise TrainError("/save FILE: which file?")
        messages = self.history.shown()
        try:
            path = Path(name).expanduser()
            with path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
        # a home that nobody has, a NUL in the name
        except (OSError, RuntimeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise TrainError(f"/save {printable(name)}: {why}") from error
        self.write(f"{len(messages)} messages appended to {path}\n")

    def _respond(self, text: str) -> None:
        if not text:
            raise TrainError("/function_response TEXT: what has it given back?")
        if not self.history.messages:
            raise TrainError("nothing was asked yet that a function could answer")
        self.say(self._function_role(), text)

    def _function_role(self) -> str:
        """The role under which this template shows what a function gave back."""
        for role in FUNCTION_ROLES:
            if self.answerer.shows(role):
                return role
        raise TrainError("the chat template of this model has no role for what a function gives")


_PROBE = [{"role": USER, "content": "?"}]
