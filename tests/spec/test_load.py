from __future__ import annotations

import json
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from clusterlm.errors import ClusterLMError, SpecError
from clusterlm.spec.job import Job
from clusterlm.spec.load import load_job
from clusterlm.spec.sources import CustomSource
from clusterlm.spec.text_file import LARGEST_FILE
from tests.spec.conftest import Load, Refuse

EVERYTHING_WRONG = """\
nmae: foo
name: "x\\ntouch PWNED #"
cluster: slrm
resources: {nodes: "4", gpus_per_node: 2, time: 3 hors, processes_per_node: true}
resources: {}
data:
  tokenizer: {train: {vocab_size: 100}}
  block_size: 64
  block_sise: 64
  sources:
    - {kind: txt, path: corpus}
    - {kind: text, path: corpus, weigth: 2}
    - {path: x}
  packing: concatt
model: 5
train:
  deepspeed: 5
  epochs: 1e
  warmup_ration: 0.1
  max_steps: 1.5
  nodes: 2
recovery:
  hang_after: 3 hors
  requeue: maybe
env: {SLURM_X: 1}
secrets: [a=b]
"""


def source(**keys: Any) -> dict[str, Any]:
    return {"data.sources": [{"kind": "chat", "path": "corpus", **keys}]}


def test_every_mistake_is_named_at_once_with_its_line(load: Load) -> None:
    with pytest.raises(SpecError) as caught:
        load(EVERYTHING_WRONG)
    assert [(p.where, p.line) for p in caught.value.problems] == [
        ("nmae", 1),
        ("name", 2),
        ("cluster", 3),
        ("resources.nodes", 4),
        ("resources.processes_per_node", 4),
        ("resources.time", 4),
        ("resources", 5),
        ("data.tokenizer.train.vocab_size", 7),
        ("data.block_sise", 9),
        ("data.sources[0].kind", 11),
        ("data.sources[1].weigth", 12),
        ("data.sources[2].kind", 13),
        ("data.packing", 14),
        ("model", 15),
        ("train.deepspeed", 17),
        ("train.epochs", 18),
        ("train.warmup_ration", 19),
        ("train.max_steps", 20),
        ("train.nodes", 21),
        ("recovery.hang_after", 23),
        ("recovery.requeue", 24),
        ("env.SLURM_X", 25),
        ("secrets[0]", 26),
    ]


@pytest.mark.parametrize(
    ("changes", "where", "says"),
    [
        ({"nmae": 1}, "nmae", "did you mean `name`?"),
        ({"data.sources": [{"kind": "txt", "path": "x"}]}, "data.sources[0].kind", "mean `text`?"),
        ({"data.packing": "concatt"}, "data.packing", "did you mean `concat`?"),
        ({"block_size": 8}, "block_size", "it belongs under `data`"),
        ({"data.dedup": {"zzz": 1}}, "data.dedup.zzz", "accepted: exact"),
        (source(layout="sharegtp"), "data.sources[0].layout", "mean `sharegpt`?"),
        (source(where={"lang": {"a": 1}}), "data.sources[0].where.lang", "a mapping"),
        (source(where={"lang": [[1]]}), "data.sources[0].where.lang[0]", "true, false or null"),
        (source(where=["lang"]), "data.sources[0].where", "write a mapping"),
        (source(role_weights={"bot": 1.0}), "data.sources[0].role_weights.bot", "accepted: system"),
        (source(role_weights={"user": 2.0}), "data.sources[0].role_weights.user", "at most 1"),
        (source(mapping={"nme": "x"}), "data.sources[0].mapping.nme", "mean `name`?"),
        (source(split="train[5]"), "data.sources[0].split", "train[:1000]"),
        (source(hub="a/b/c"), "data.sources[0].hub", "such as owner/name"),
        (source(epochs=0.0), "data.sources[0].epochs", "more than 0"),
        (source(prompt="x"), "data.sources[0].prompt", "unknown key"),
        ({"data.block_size": ...}, "data.block_size", "is missing"),
        ({"data.block_size": None}, "data.block_size", "is empty; write a whole number"),
        ({"data.block_size": True}, "data.block_size", "found true; write a whole number"),
        ({"data.block_size": 64.0}, "data.block_size", "found 64.0; write a whole number"),
        ({"data.block_size": 4}, "data.block_size", "found 4; at least 8"),
        ({"data.sources": []}, "data.sources", "at least 1"),
        ({"data.sources": {"kind": "text"}}, "data.sources", "found a mapping; write a list"),
        ({"model.revision": 1.1}, "model.revision", "put it in quotes"),
        ({"resources.mem": 64}, "resources.mem", "64 is no size"),
        ({"resources.time": None}, "resources.time", "is empty"),
        ({"model.adapter": {"target_modules": "q_proj"}}, "model.adapter.target_modules", "a list"),
        ({"train.deepspeed": []}, "train.deepspeed", "{stage: 2}"),
        ({"train.deepspeed": {"stage": 4}}, "train.deepspeed.stage", "accepted: 0, 1, 2, 3"),
        ({"train.epochs": 0}, "train.epochs", "more than 0"),
        ({"train.command": []}, "train.command", "at least 1"),
        ({"name": "x" * 65}, "name", "at most 64 characters"),
        ({"env": {"a b": "1"}}, "env.a b", "only letters, digits and _"),
        ({"env": ["A"]}, "env", "one line of text"),
        ({"model.from_scratch.config": 3}, "model.from_scratch.config", "a mapping"),
    ],
)
def test_a_mistake_says_what_was_found_and_what_is_accepted(
    refuse: Refuse, changes: dict[str, Any], where: str, says: str
) -> None:
    assert says in refuse(changes)[where]


def test_a_value_that_fits_none_of_many_types_is_one_mistake(load: Load) -> None:
    with pytest.raises(SpecError) as caught:
        load(source(where={"lang": {"a": 1}}))
    assert len(caught.value.problems) == 1


def test_rules_between_sound_sections_run_beside_a_broken_one(refuse: Refuse) -> None:
    found = refuse({"data.block_size": "x", "recovery.stop_grace": "2h", "image.pip": ["torch"]})
    assert set(found) == {"data.block_size", "recovery.stop_grace", "image.pip[0]"}


def test_a_found_value_is_shown_escaped_and_cut(refuse: Refuse) -> None:
    message = refuse({"name": "\x1b[31m\u202eevil" + "y" * 10_000})["name"]
    assert message.isprintable()
    assert "\\x1b[31m\\u202eevil" in message
    assert "(10010 characters)" in message
    assert len(message) < 300


def test_what_may_be_a_secret_is_never_shown(load: Load) -> None:
    secret = "s3cr3t-value"
    for job in (
        {"secrets": [f"HF_TOKEN={secret}"]},
        {"secrets": {"HF_TOKEN": secret}},
        {"secrets": secret},
        {"env": {"A": f"{secret}\n"}},
        {"env": {"MY_API_KEY": secret}},
        {"secrets": ["hf_" + "a" * 30]},
    ):
        with pytest.raises(SpecError) as caught:
            load(job)
        assert secret not in str(caught.value)
        assert "aaaa" not in str(caught.value)


def test_a_section_whose_keys_are_commented_out_is_left_out(load: Load) -> None:
    assert load({"resources": None, "recovery": None}).job.resources.nodes == 1


def test_a_time_that_yaml_reads_as_a_number_is_kept(load: Load, folder: Path) -> None:
    load({})
    text = (folder / "job.yaml").read_text() + "resources: {time: 12:30:00}\n"
    assert load(text).job.resources.time == 45_000
    assert load(text).text == text


def test_a_resolved_job_is_read_back_as_the_same_job(load: Load) -> None:
    job = load({"resources": {"mem": "64G", "time": "2h"}, "train": {"optim": "sgd"}}).job
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert Job.model_validate(job.model_dump()) == job
    assert json.loads(job.model_dump_json())["resources"]["time"] == "7200s"


# overrides


def test_overrides_reach_keys_items_and_sections_not_yet_there(load: Load) -> None:
    loaded = load(
        {},
        "resources.time=12:30:00",
        "data.sources[0].weight=2",
        "data.sources.0.field=body",
        "env.A=1.10",
        "env.B=",
        "train.max_steps=1e3",
        "data.sources[0].path=corpus/*.txt",
    )
    job = loaded.job
    assert job.resources.time == 45_000
    assert job.data is not None
    assert (job.data.sources[0].weight, job.data.sources[0].model_dump()["field"]) == (2.0, "body")
    assert job.env == {"A": "1.10", "B": ""}
    assert job.train.max_steps == 1000
    assert len(loaded.overrides) == 7


def test_an_override_may_be_a_glob_or_begin_with_a_placeholder(load: Load) -> None:
    job = load({}, "data.sources[0].path={stdlib}/json/*.py").job
    assert job.data is not None
    assert job.data.sources[0].path == f"{sysconfig.get_path('stdlib')}/json/*.py"
    assert load({}, "data.sources[0].path=*/*.txt").job.data is not None


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("foo", "--set foo"),
        ("a..b=1", "--set a..b"),
        ("=1", "--set "),
        ("a b=1", "--set a b"),
        ("data.sources[9].path=x", "--set data.sources[9].path"),
        ("data.sources.x=1", "--set data.sources.x"),
        ("name.x=1", "--set name.x"),
        ("data.block_size=x", "--set data.block_size"),
        ("dta.block_size=8", "--set dta"),
        ("data.sources[0]={kind: txt}", "--set data.sources[0].kind"),
    ],
)
def test_a_bad_override_is_a_problem_of_its_own(refuse: Refuse, override: str, where: str) -> None:
    assert any(found.startswith(where) for found in refuse({}, override))


# paths


def test_paths_are_relative_to_the_yaml_and_not_to_where_one_stands(
    load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(folder))
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "tokenizer.json").write_text("{}")
    (folder / "own.py").write_text("")
    (folder / "chat.jinja").write_text("")
    job = load(
        {
            "model": {"name": "model"},
            "data.tokenizer": {"name": "~/model", "chat_template": "chat.jinja"},
            "train.command": ["own.py", "own.py"],
        }
    ).job
    assert job.model is not None
    assert job.data is not None
    assert job.model.name == job.data.tokenizer.name == str(folder / "model")
    assert job.data.tokenizer.chat_template == str(folder / "chat.jinja")
    assert job.data.sources[0].path == str(folder / "corpus/*.txt")
    assert job.train.command == [str(folder / "own.py"), "own.py"]


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("conv.py:to_messages", "{folder}/conv.py:to_messages"),
        ("./conv.py:to_messages", "{folder}/conv.py:to_messages"),
        ("conv.to_messages", "{folder}/conv.py:to_messages"),
        ("conv:to_messages", "{folder}/conv.py:to_messages"),
        ("sub/conv.py:to_messages", "{folder}/sub/conv.py:to_messages"),
        ("sub.conv.to_messages", "{folder}/sub/conv.py:to_messages"),
        ("~/conv.py:to_messages", "{folder}/conv.py:to_messages"),
        ("{folder}/conv.py:to_messages", "{folder}/conv.py:to_messages"),
        ("json.dumps", "json.dumps"),
        ("json:dumps", "json:dumps"),
    ],
)
def test_a_converter_beside_the_yaml_is_stored_with_its_path(
    load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch, written: str, stored: str
) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(folder))
    (folder / "sub").mkdir()
    for name in ("conv.py", "sub/conv.py"):
        (folder / name).write_text("def to_messages(record): ...\n")
    converter = written.replace("{folder}", str(folder))
    one = {"kind": "custom", "path": "corpus", "converter": converter}
    data = load({"data.sources": [one], "data.validation.sources": [one]}).job.data
    assert data is not None
    for found in (*data.sources, *data.validation.sources):
        assert isinstance(found, CustomSource)
        assert found.converter == stored.replace("{folder}", str(folder))


@pytest.mark.parametrize("template", ["qwen", "{% if x %}{y}{% endif %}", "{{ bos_token }}\n"])
def test_a_template_that_is_no_file_stays_as_it_is(load: Load, template: str) -> None:
    data = load({"data.tokenizer.chat_template": template}).job.data
    assert data is not None
    assert data.tokenizer.chat_template == template


def test_a_name_that_is_no_folder_is_a_hub_id(load: Load) -> None:
    job = load({"model": {"name": "owner/model"}}).job
    assert job.model is not None
    assert job.model.name == "owner/model"


def test_an_unknown_placeholder_is_named_once(refuse: Refuse) -> None:
    found = refuse({"data.sources": [{"kind": "text", "path": "{home}/x"}]})
    assert list(found) == ["data.sources[0].path"]
    assert "{home} is no placeholder; accepted: {stdlib}" in found["data.sources[0].path"]


# files that cannot be read


def test_what_is_no_file_of_text_is_refused_with_exit_code_2(folder: Path) -> None:
    (folder / "latin").write_bytes(b"name: x\n# caf\xe9\n")
    (folder / "large").write_bytes(b"#" * (LARGEST_FILE + 1))
    (folder / "empty").write_bytes(b"")
    for name, says in [
        ("absent", "no such file"),
        ("corpus", "is a folder"),
        ("latin", r"not UTF-8 \(line 2\)"),
        ("large", "larger than 1 MiB"),
        ("empty", "the file is empty"),
        ("a\0b", "cannot be read|no such file"),
    ]:
        with pytest.raises(ClusterLMError, match=says) as caught:
            load_job(folder / name)
        assert caught.value.exit_code == 2


def test_a_file_without_permission_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "job.yaml").write_text("name: x")

    # root may read everything, so the refusal is played
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    with pytest.raises(ClusterLMError, match="cannot be read"):
        load_job(folder / "job.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(load: Load, folder: Path) -> None:
    load({})
    (folder / "job.yaml").write_bytes(b"\xef\xbb\xbf" + (folder / "job.yaml").read_bytes())
    assert load_job(folder / "job.yaml").job.name == "small"


# notes


def test_old_names_are_read_as_the_new_ones_with_a_note(load: Load) -> None:
    loaded = load({"train.warmup_ratio": 0.1, "train.overwrite_output_dir": True})
    assert loaded.job.train.warmup == 0.1
    assert loaded.job.train.further_arguments == {}
    assert len(loaded.notes) == 2


def test_torch_dtype_of_a_model_is_dtype(load: Load) -> None:
    loaded = load({"model.torch_dtype": "bfloat16"})
    assert loaded.job.model is not None
    assert loaded.job.model.dtype == "bfloat16"
    assert "torch_dtype" in loaded.notes[0]


def test_choices_that_a_local_run_cannot_follow_are_noted(load: Load) -> None:
    assert "resources.partition" in load({"resources": {"partition": "gpu"}}).notes[0]
    assert load({"cluster": "slurm", "resources": {"partition": "gpu"}}).notes == ()
    assert "data.tasks: 16 run as one" in load({"data.tasks": 16}).notes[0]
    assert load({"cluster": "slurm", "data.tasks": 16}).notes == ()


def test_what_may_fail_under_zero_3_is_noted(load: Load) -> None:
    train = {"mode": "adapter", "strategy": "deepspeed", "deepspeed": {"stage": 3}}
    adapter = {"modules_to_save": ["lm_head"]}
    base = {"model.name": "owner/name", "model.from_scratch": ...}
    loaded = load(base | {"model.adapter": adapter, "train": train})
    assert any("modules_to_save" in note for note in loaded.notes)
    loaded = load(base | {"model.adapter": {"method": "dora"}, "train": train})
    assert any("dora takes the length" in note for note in loaded.notes)
