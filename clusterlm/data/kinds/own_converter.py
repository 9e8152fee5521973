"""A user's own converter: found, loaded once per process, called safely.

It is named by its file (`/jobs/conv.py:to_messages`; `spec/local_paths.py` has made the path
absolute) or as a function of an installed package (`package.module.function`). The folder of a file
goes to the end of `sys.path`: its neighbours can be imported, and hide nothing that is installed.
Whatever the function raises is a bad record and told with the line of the user's file.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import xxhash

from clusterlm.data.kinds.conversation import BadRecord, Dropped
from clusterlm.data.kinds.converter_code import code_files
from clusterlm.errors import DataError
from clusterlm.spec.wording import printable


def own_function(converter: str, options: Mapping[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """The function, with its options; it raises BadRecord for whatever goes wrong within.

    Raises:
        DataError: it cannot be loaded, or does not take a record and these options.
    """
    function = _load(converter)
    _check_arguments(converter, function, options)
    keywords = dict(options)

    def call(record: dict[str, Any]) -> Any:
        try:
            return function(record, **keywords)
        except (BadRecord, Dropped):
            raise
        except KeyboardInterrupt:
            raise
        # also sys.exit, which would end the phase as if all was done, and a panic of native code
        except BaseException as error:
            raise BadRecord(f"the converter failed: {_told(error)}") from error

    return call


def converter_digest(converter: str) -> str:
    """32 hex characters that change with the code: of its file, and of the neighbours it imports.

    Raises:
        DataError: the file or module is not there.
    """
    state = xxhash.xxh3_128()
    first, root = _file_of(converter)
    try:
        for path in code_files(first, root):
            # by the name below the root: a job that was moved gives the same tokens
            name = path.relative_to(root).as_posix()
            state.update(os.fsencode(name) + b"\0" + path.read_bytes() + b"\0")
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise DataError(f"the converter's file {first} cannot be read: {error}") from error
    return str(state.hexdigest())


def _load(converter: str) -> Callable[..., Any]:
    module_name, name = _parts(converter)
    try:
        if module_name.endswith(".py"):
            module = _module_of_file(Path(module_name))
        else:
            module = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise DataError(f"the converter {converter} cannot be loaded: {_told(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        found = "is no function" if function is not None else "is not there"
        raise DataError(f"the converter {converter} cannot be loaded: {name} {found}")
    return function  # type: ignore[no-any-return]


def _parts(converter: str) -> tuple[str, str]:
    """File or module, and the function's name."""
    if ":" in converter:
        module, _, name = converter.rpartition(":")
    else:
        module, _, name = converter.rpartition(".")
    if not module or not name:
        raise DataError(
            f"the converter {converter!r} names no function; write conv.py:function or "
            "package.module.function"
        )
    return module, name


def _module_of_file(path: Path) -> ModuleType:
    digest = xxhash.xxh3_64_hexdigest(str(path).encode())
    name = f"_clusterlm_converter_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses and pickle look a module up by its name
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_arguments(
    converter: str, function: Callable[..., Any], options: Mapping[str, Any]
) -> None:
    try:
        inspect.signature(function).bind({}, **options)
    except TypeError as error:
        asked = ", ".join(["a record", *(f"{name}=..." for name in options)])
        raise DataError(f"the converter {converter} does not take ({asked}): {error}") from error
    except ValueError:
        # of a function written in C the arguments are not known
        return


def _told(error: BaseException) -> str:
    """Kind and text of an error, and the innermost line that is not the library's."""
    text = printable(" ".join(str(error).split())[:300])
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    here = str(Path(__file__))
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != here]
    lines = [f for f in lines if not f.filename.startswith("<")]
    return f"{told} ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else told


def _file_of(converter: str) -> tuple[Path, Path]:
    """The file, and the folder from which its neighbours are imported."""
    module_name, _ = _parts(converter)
    if module_name.endswith(".py"):
        path = Path(module_name)
        return path, path.parent
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError) as error:
        raise DataError(f"the converter {converter} cannot be found: {error}") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise DataError(f"the converter {converter} cannot be found: no module {module_name}")
    path = Path(spec.origin)
    depth = module_name.count(".") + (path.name == "__init__.py")
    root = path.parents[min(depth, len(path.parents) - 1)]
    # some installers lay the files elsewhere than where their names say
    is_plain = path.is_relative_to(root / module_name.partition(".")[0]) or not depth
    return path, root if is_plain else path.parent
