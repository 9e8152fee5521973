"""The program that each RUN of the Dockerfile starts: `python3 /opt/clusterlm/build STEP ...`.

It is copied there as `__main__.py`, with the steps beside it in `clusterlm/node/`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType


def main(argv: list[str] | None = None) -> None:
    """Run one step of the Dockerfile."""
    asked = _parser().parse_args(argv)
    if asked.step == "base":
        from clusterlm.node.image_base import record_base

        record_base(asked.name)
    elif asked.step == "apt":
        from clusterlm.node.image_base import install_apt

        install_apt(asked.packages)
    elif asked.step == "pip":
        from clusterlm.node.image_pip import install

        install(asked.what, wheelhouse=asked.wheelhouse, no_deps=asked.no_deps)
    else:
        from clusterlm.node.image_verify import verify_image

        verify_image(asked.recipe, asked.clusterlm, asked.env)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="image_main.py", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    base = steps.add_parser("base", help="note what the base brings")
    base.add_argument("name", help="the base, for messages")
    apt = steps.add_parser("apt", help="add Debian packages")
    apt.add_argument("packages", nargs="+")
    pip = steps.add_parser("pip", help="add Python packages")
    pip.add_argument("what", help="a requirements file, or a wheel")
    pip.add_argument("--no-deps", action="store_true")
    pip.add_argument("--wheelhouse", help="folder that pip takes everything from")
    pip.add_argument("--content", help="digest of that folder: another one, another layer")
    verify = steps.add_parser("verify", help="torch is the base's, clusterlm starts")
    verify.add_argument("--recipe", required=True)
    verify.add_argument("--clusterlm", required=True, help="the version that must be there")
    verify.add_argument("--env", nargs="*", default=[], help="names that image.env sets")
    return parser


if __name__ == "__main__":
    # the steps beside this file, also where the base has a clusterlm of another version installed
    package = ModuleType("clusterlm")
    package.__path__ = [str(Path(__file__).resolve().parent / "clusterlm")]
    sys.modules["clusterlm"] = package
    # a variable would reach what `verify` writes down as the image's environment
    sys.dont_write_bytecode = True
    main()
