"""The class of a model: of transformers, of an installed package, or the user's own.

    LlamaForCausalLM            of transformers
    package.module.Class        of an installed package
    /jobs/my_model.py:Class     of a file; `spec/local_paths.py` has made its path absolute

A file is imported as part of a package that stands for its folder, so `from .layers import Gate`
finds its neighbour; the folder goes to the end of `sys.path` too, for `import layers`. transformers
puts a copy of the file, and of the neighbours it imports with a dot, beside every saved model, and
`trust_remote_code` loads it from there: the saved folder needs nothing of the job's.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from clusterlm.errors import TrainError
from clusterlm.spec.wording import one_line, or_nearest

AUTO = "AutoModelForCausalLM"


def find_model_class(asked: str, place: str) -> Any:
    """The class named by `asked`, which brings a config_class.

    Args:
        asked: as in the spec.
        place: key of the spec, for messages.
    """
    if ":" in asked:
        found = _of_file(asked, place)
    elif "." in asked:
        found = _of_package(asked, place)
    else:
        found = getattr(transformers, asked, None)
    if getattr(found, "config_class", None) is not None:
        return found
    raise TrainError(f"{place}: {_why_not(asked, found)}")


def auto_class(config: dict[str, Any], place: str) -> tuple[Any, dict[str, Any]]:
    """What AutoModelForCausalLM stands for by the model_type of a config; and the other keys."""
    rest = dict(config)
    model_type = rest.pop("model_type", None)
    known = {c.model_type: c for c in MODEL_FOR_CAUSAL_LM_MAPPING if hasattr(c, "model_type")}
    if model_type not in known:
        raise TrainError(
            f"{place}.config.model_type: {model_type!r} is no model type that transformers "
            f"{transformers.__version__} has a class for{or_nearest(str(model_type), known)}"
        )
    return MODEL_FOR_CAUSAL_LM_MAPPING[known[model_type]], rest


def _of_file(asked: str, place: str) -> Any:
    path, _, name = asked.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise TrainError(f"{place}: the file {file} is not on this node")
    found: Any = getattr(_import(_module_name(file), f"{place}: {file}"), name, None)
    config_class = getattr(found, "config_class", None)
    # both are needed to load what is saved; a config of transformers is found without a copy
    if config_class is not None:
        found.register_for_auto_class(AUTO)
        if config_class.__module__.startswith(_package_name(file.parent)):
            config_class.register_for_auto_class()
    return found


def _of_package(asked: str, place: str) -> Any:
    module, _, name = asked.rpartition(".")
    return getattr(_import(module, f"{place}: {asked}"), name, None)


def _import(module: str, what: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    # whatever the user's file does when it is imported
    except Exception as error:
        text = one_line(error)
        raise TrainError(f"{what} cannot be imported: {type(error).__name__}: {text}") from error


def _module_name(file: Path) -> str:
    """Name of the file's module in the package that stands for its folder."""
    package = _package_name(file.parent)
    if package not in sys.modules:
        module = types.ModuleType(package)
        module.__path__ = [str(file.parent)]
        sys.modules[package] = module
        # at the end: a neighbour hides nothing that is installed
        sys.path.append(str(file.parent))
    return f"{package}.{file.stem}"


def _package_name(folder: Path) -> str:
    # the name must not change from rank to rank, nor clash with that of another folder
    return f"_clusterlm_beside_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def _why_not(asked: str, found: Any) -> str:
    if found is not None:
        return f"{asked} has no config_class, so it is no model class of transformers' kind"
    if ":" in asked or "." in asked:
        return f"there is no {asked}"
    known = [name for name in dir(transformers) if name.endswith("ForCausalLM")]
    version = transformers.__version__
    return f"transformers {version} has no model {asked}{or_nearest(asked, known)}"
