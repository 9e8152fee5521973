r"""Values of somebody who wants more than a training. `pwned` is a program that only they call."""

from __future__ import annotations

PWNED = "pwned"

SHELL = (
    *(f";{PWNED}", f"&&{PWNED}", f"||{PWNED}", f"|{PWNED}", f"&{PWNED}&", f"a;{PWNED} #"),
    *(f"$({PWNED})", f"`{PWNED}`", f"${{x:-$({PWNED})}}", f"$[$({PWNED})]", f"<({PWNED})"),
    *(f"'$({PWNED})'", f'"$({PWNED})"', f"';{PWNED};'", f'";{PWNED};"', f"'\"$({PWNED})\"'"),
    *(f"\\';{PWNED};\\'", f'\\";{PWNED};\\"', f"a\\\n{PWNED}", "a\\", f"$'\\n{PWNED}\\n'"),
    *("$HOME", "${IFS}x", "~root", "*", "?", "{a,b}", "!!", "a b", " lead", "trail ", "#x"),
    *(f"x) {PWNED};;", f"x | y) {PWNED}", f"}}; {PWNED}; {{", f"x{{{PWNED},}}", ">/tmp/pwned-file"),
)
LINES = (
    *(f"x\n{PWNED}", f"x\r\n{PWNED}\r\n", f"x\n#SBATCH --wrap={PWNED}", "x\n#SBATCH --uid=0\n"),
    *(f"\n{PWNED}\n", f"x\rRUN {PWNED}", f"x\u2028{PWNED}", f"x\x85{PWNED}", f"x\x0b{PWNED}"),
    *(f"x\\\nRUN {PWNED}", f"x\nRUN {PWNED}", f"x\nEOF\n{PWNED}\n"),
)
OPTIONS = (
    *("-o/etc/x", "--output=/etc/x", f"--wrap={PWNED}", "--uid=0", "-oProxyCommand=" + PWNED),
    *("--", "-", "--privileged", "--mount=type=bind,source=/,target=/host", "--export=ALL,X=1"),
    *(f"--prolog={PWNED}", f"--task-prolog={PWNED}", f"--bcast=/x,--epilog={PWNED}", "-e"),
)
EXPANDED = (
    *("%j%u%x", "%%", "%A_%a", "{{7*7}}", "{% raw %}", "{# x #}", "${{x}}", "$ENV", "%(x)s"),
    *("!!python/object/apply:os.system [pwned]", "# syntax=evil/frontend", "# escape=`"),
)
PATHS = (
    *("../../etc/passwd", "/etc/../../x", "/x/../../y", "//x", "/x:/y:rw", "/x,ro", "/x y"),
    *("/a:/etc", "/a:/usr/bin", "file:///etc/passwd", "git+https://a:b@c/d", "a@b:c", "x/./../y"),
)
UNICODE = (
    *("x\0y", "\x1b]0;title\x07", "\x1b[2J", "\u202egnp.exe", "\u2066x\u2069", "x\u200fy"),
    *("é", "🙂", "ﬀ", "ⅰ", "пример", "\ufeffx", "\ud800", "x" * 65_536, ";" * 5000),  # noqa: RUF001
)
PAYLOADS = (*SHELL, *LINES, *OPTIONS, *EXPANDED, *PATHS, *UNICODE)
