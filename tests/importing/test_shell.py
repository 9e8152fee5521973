"""A script is read as a shell would read it, and nothing of it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterlm.importing.shell import Script, read_script, readable, unset_in
from clusterlm.importing.words import Unreadable


def last(text: str, before: Script | None = None) -> list[str]:
    return [readable(word) for word in read_script(text, before).commands[-1].argv]


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("run --a 1 # no more", ["run", "--a", "1"]),
        ("run \\\n  --a \\\n 1", ["run", "--a", "1"]),
        ("run --a 1\r\n", ["run", "--a", "1"]),
        ("x=2e-4\nrun ${x} $x.5 '$x' \"$x y\"", ["run", "2e-4", "2e-4.5", "$x", "2e-4 y"]),
        ("run ${x:-7} ${y-8} ${z:-$w}", ["run", "7", "8", "$w"]),
        ("x=\nrun ${x:-7}", ["run", "7"]),
        ("a='1 2'\nrun $a \"$a\"", ["run", "1", "2", "1 2"]),
        ('a=(--b "c d")\nrun "${a[@]}" ${a[*]}', ["run", "--b", "c d", "--b", "c", "d"]),
        ('a=(--b "c d")\nrun $a', ["run", "--b"]),
        ("a=(1)\na+=(2)\nrun ${a[@]}", ["run", "1", "2"]),
        ('a=1\na+=2\nb="${a}x"\nrun $b', ["run", "12x"]),
        ('run a"b"\'c\' "d\\"e" f\\ g', ["run", "abc", 'd"e', "f g"]),
        ("run $(nproc) `nproc` $1 $RANDOM", ["run", "$(nproc)", "$(nproc)", "$1", "$RANDOM"]),
        ('run "${ip: -1}" $unset', ["run", "${ip: -1}", "$unset"]),
        ("run --a > log.txt 2>&1 --b", ["run", "--a", "--b"]),
        ("if [ -z $x ]; then run 1; fi", ["run", "1"]),
        ("true && run 1", ["run", "1"]),
        ("run ''", ["run", ""]),
        ("run a#b", ["run", "a#b"]),
        ("export ip=$(hostname -i | head -1)\nrun $ip:1", ["run", "$(hostname -i | head -1):1"]),
    ],
)
def test_words_are_those_of_a_shell(text: str, argv: list[str]) -> None:
    assert last(text) == argv


def test_variables_of_a_caller_are_seen() -> None:
    caller = read_script("export N=8\n")
    assert last("run $N", caller) == ["run", "8"]


def test_a_name_without_a_value_is_told_apart_from_a_dollar_in_quotes() -> None:
    argv = read_script("run $X '$Y'").commands[0].argv
    assert [unset_in(word) for word in argv] == [[], ["X"], []]


def test_what_a_command_is_given_alone_is_no_variable() -> None:
    script = read_script("A=1 run $A\nexport B=2 C\n")
    assert script.commands[0].env == {"A": "1"}
    assert "A" not in script.variables
    assert script.exported == {"B": "2", "C": ""}


def test_a_here_document_is_the_file_that_it_writes() -> None:
    text = "d=conf\ncat << 'EOF' > $d/ds.json\n{\"a\": 1}\nEOF\ncat <<EOF | tee x\nno\nEOF\nrun it"
    script = read_script(text)
    assert script.files == {"conf/ds.json": '{"a": 1}'}
    assert script.commands[-1].argv == ["run", "it"]
    assert script.commands[-1].line == 8


def test_a_line_that_begins_with_an_option_goes_with_the_one_above() -> None:
    script = read_script("run --a \n  --b 1 \\\n --c")
    assert script.commands[0].argv == ["run", "--a", "--b", "1", "--c"]
    assert script.mended == [2]


def test_sbatch_lines_are_kept_with_their_numbers() -> None:
    assert read_script("#!/bin/bash\n#SBATCH -N 2\n#SBATCHX\n").sbatch == [(2, "-N 2")]


@pytest.mark.parametrize(
    "text", ["run 'a", 'x=1\nrun "a', "run ${x", "run $(x", "a=(1 2", "run `x"]
)
def test_an_open_quote_is_named_with_its_line(text: str) -> None:
    with pytest.raises(Unreadable, match=f"line {text.count(chr(10)) + 1}: .* is never closed"):
        read_script(text)


def test_nothing_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    read_script(f"touch {mark}\nx=$(touch {mark})\ny=`touch {mark}`\nrun ${{x:-$(touch {mark})}}")
    assert not mark.exists()
