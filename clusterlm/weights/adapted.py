"""A model with an adapter over it, through peft, not merged."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from clusterlm.errors import WeightsError
from clusterlm.weights.files import ADAPTER_WEIGHTS, read_header
from clusterlm.weights.whole_load import explain_adapter, faults_of_adapter


def put_adapter_on(model: Any, folder: Path) -> Any:
    """The model with the adapter of `folder`; embeddings grow first when the adapter's are larger.

    Raises:
        WeightsError: it is of another model, or not whole.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    rows = embedding_rows(model, folder)
    if rows is not None and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    try:
        with warnings.catch_warnings():
            # some weights are found missing: those are said below
            warnings.filterwarnings("ignore", category=UserWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, OSError, TypeError, KeyError, SafetensorError) as error:
        words = explain_adapter(str(folder), error)
        raise WeightsError(f"{folder}: is no adapter of this model: {words}") from error
    if faults := faults_of_adapter(adapted, folder):
        raise WeightsError(f"{folder}: is no whole adapter of this model: {'; '.join(faults)}")
    return adapted.eval()


def embedding_rows(model: Any, folder: Path) -> int | None:
    """Rows of the embedding that an adapter brings; None when it brings none.

    Raises:
        WeightsError: its file is cut off.
    """
    embedding = model.get_input_embeddings()
    name = next((n for n, module in model.named_modules() if module is embedding), None)
    tensors = folder / ADAPTER_WEIGHTS
    if name is None or not tensors.is_file():
        return None
    copies = ("", ".base_layer", ".modules_to_save", ".original_module")
    wanted = {f"base_model.model.{name}{copy}.weight" for copy in copies}
    header = read_header(tensors)
    return next((header[key].shape[0] for key in wanted & set(header)), None)
