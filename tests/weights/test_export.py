"""Export through a converter that is not llama.cpp's but writes down how it was called."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from clusterlm.errors import WeightsError
from clusterlm.weights.export import Export, Tools, export_gguf
from clusterlm.weights.merge_job import MergeJob
from clusterlm.weights.modelfile import find_around, modelfile_text
from tests.weights.kinds import make_adapter, make_base, make_tokenizer

CONVERTER = """
import json, pathlib, sys
here = pathlib.Path(__file__).parent
argv = sys.argv[1:]
model = pathlib.Path(argv[0])
(here / "convert.json").write_text(json.dumps([argv, sorted(p.name for p in model.iterdir())]))
if (here / "fail").exists():
    sys.exit("ModuleNotFoundError: No module named 'gguf'")
pathlib.Path(argv[argv.index("--outfile") + 1]).write_bytes(b"GGUF")
"""
QUANTIZE = """#!/bin/sh
echo "$3" >> "$(dirname "$0")/levels"
cp "$1" "$2"
"""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def quiet(text: str) -> None:
    """Say nothing."""


@pytest.fixture
def llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "llama.cpp"
    (folder / "build" / "bin").mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").write_text(CONVERTER)
    program = folder / "build" / "bin" / "llama-quantize"
    program.write_text(QUANTIZE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("LLAMA_CPP", str(folder))
    return folder


def test_each_level_has_a_modelfile(llama_cpp: Path, tmp_path: Path) -> None:
    make_base(tmp_path / "base", "llama")
    asked = Export("m", str(tmp_path / "base"), "", None, ("q8_0", "q4_k_m"), None)
    written = export_gguf(
        asked, Tools.find(None, None, needs_quantize=True), tmp_path / "out", say=quiet
    )
    assert sorted(p.name for p in written) == sorted(p.name for p in (tmp_path / "out").iterdir())
    assert [p.name for p in written[::2]] == ["m-f16.gguf", "m-q8_0.gguf", "m-q4_k_m.gguf"]
    argv, _ = json.loads((llama_cpp / "convert.json").read_text())
    assert argv[0] == str(tmp_path / "base")
    assert argv[1::2] == ["--outfile", "--outtype"]
    assert (llama_cpp / "build" / "bin" / "levels").read_text().split() == ["Q8_0", "Q4_K_M"]
    assert (tmp_path / "out" / "Modelfile-q8_0").read_text().startswith("FROM ./m-q8_0.gguf\n")


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_is_merged_first(llama_cpp: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    settings = {"target_modules": ["q_proj"]}
    adapter = make_adapter(tmp_path / "adapter", base, make_base(base, "llama"), settings)
    asked = Export("m", "", "", None, (), MergeJob(str(base), [adapter], str(base), bound=1e-4))
    tools = Tools.find(None, None, needs_quantize=False)
    export_gguf(asked, tools, tmp_path / "out", say=quiet)
    _, names = json.loads((llama_cpp / "convert.json").read_text())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    assert "adapter_config.json" not in names
    assert not list(tmp_path.glob(".*"))


def test_a_failure_leaves_nothing_and_says_why(llama_cpp: Path, tmp_path: Path) -> None:
    make_base(tmp_path / "base", "llama")
    (llama_cpp / "fail").touch()
    asked = Export("m", str(tmp_path / "base"), "", None, (), None)
    tools = Tools.find(None, None, needs_quantize=False)
    with pytest.raises(WeightsError, match=r"(?s)failed \(exit 1\).*pip install gguf"):
        export_gguf(asked, tools, tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WeightsError, match=r"(?s)not found.*git clone.*LLAMA_CPP.*--converter"):
        Tools.find(None, None, needs_quantize=False)
    with pytest.raises(WeightsError, match="--converter .*: there is no such file"):
        Tools.find(tmp_path / "no.py", None, needs_quantize=False)


def test_a_simple_template_becomes_one_of_ollama(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    tokenizer.save_pretrained(tmp_path)
    text = modelfile_text("m.gguf", tmp_path)
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert (
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
        "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n"
        "{{ end }}{{ .Response }}<|im_end|>\n"
    ) in text


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    ],
)
def test_other_templates_are_left_to_the_gguf(template: str, tmp_path: Path) -> None:
    tokenizer: Any = make_tokenizer()
    tokenizer.chat_template = template
    assert find_around(tokenizer) is None
    tokenizer.save_pretrained(tmp_path)
    assert "takes what the GGUF holds" in modelfile_text("m.gguf", tmp_path)


def test_without_a_template_text_is_continued(tmp_path: Path) -> None:
    make_base(tmp_path, "llama", dtype=torch.bfloat16)
    text = modelfile_text("m.gguf", tmp_path)
    assert 'TEMPLATE "{{ .Prompt }}"' in text
    assert "PARAMETER num_ctx 64" in text
