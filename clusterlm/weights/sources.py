"""Where a base lies on this machine, and what stands beside the weights of a model."""

from __future__ import annotations

import shutil
from pathlib import Path

from clusterlm.errors import WeightsError
from clusterlm.spec.wording import one_line

# no pickles, and nothing of the other frameworks
OF_A_MODEL = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]
OF_A_TOKENIZER = (
    *("tokenizer*.json", "*.model", "vocab.json", "vocab.txt", "merges.txt"),
    *(
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template*",
        "additional_chat_templates",
    ),
)
GENERATION = "generation_config.json"


def base_folder(name: str, revision: str | None = None) -> Path:
    """The folder `name`, or the copy of a model of the hub on this machine, fetched if need be.

    Raises:
        WeightsError: it is neither here nor there.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=OF_A_MODEL))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        words = one_line(error, 300)
        raise WeightsError(
            f"{name}: neither a folder nor to be had from the hub: {words}; where there is a "
            f"network: hf download {name} --local-dir FOLDER, then give FOLDER in its place"
        ) from error


def copy_beside(base: Path, tokenizer: str, adapter: Path, to: Path) -> None:
    """Copy tokenizer, chat template, settings of generation and the model's own code."""
    source = Path(tokenizer) if Path(tokenizer).is_dir() else base
    for pattern in OF_A_TOKENIZER:
        for found in sorted(source.glob(pattern)):
            if found.is_dir():
                shutil.copytree(found, to / found.name)
            else:
                shutil.copyfile(found, to / found.name)
    for code in sorted(base.glob("*.py")):
        shutil.copyfile(code, to / code.name)
    for folder in (adapter, base):
        if (folder / GENERATION).is_file():
            shutil.copyfile(folder / GENERATION, to / GENERATION)
            break
