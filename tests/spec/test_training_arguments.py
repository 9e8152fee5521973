from __future__ import annotations

import dataclasses
import types
import typing

import pytest

from clusterlm.spec import old_names, rules_further
from clusterlm.spec import training_arguments as table
from clusterlm.spec.train import Train

# transformers' own deprecations are not this test's business
pytestmark = pytest.mark.filterwarnings("ignore")

OWN = set(Train.model_fields)


def _fields() -> dict[str, object]:
    transformers = pytest.importorskip("transformers", minversion="5.23")
    hints = typing.get_type_hints(transformers.TrainingArguments)
    return {f.name: hints[f.name] for f in dataclasses.fields(transformers.TrainingArguments)}


def test_the_table_is_that_of_the_installed_transformers() -> None:
    known = set(table.FREE) | set(table.OWNED) | set(old_names.RENAMED) | OWN
    assert set(_fields()) - known == set()
    assert (set(table.FREE) | set(table.OWNED)) - set(_fields()) == set()


def test_the_types_are_those_of_the_installed_transformers() -> None:
    kinds = {bool: table.FLAG, int: table.INT, float: table.NUMBER, str: table.TEXT}
    for name, hint in _fields().items():
        is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        members = [h for h in typing.get_args(hint) if h is not type(None)] if is_union else [hint]
        plain = kinds.get(members[0]) if len(members) == 1 else None
        if name in table.FREE and plain is not None:
            assert table.FREE[name] == plain, name


def test_old_names_are_gone_from_the_installed_transformers() -> None:
    assert set(table.GONE) & set(_fields()) == set()


def test_schedulers_and_optimizers_are_those_of_the_installed_transformers() -> None:
    pytest.importorskip("transformers", minversion="5.23")
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    assert set(table.SCHEDULERS) == {s.value for s in SchedulerType}
    assert set(table.OPTIMIZERS) == {o.value for o in OptimizerNames}


def test_no_name_stands_in_two_tables() -> None:
    names = [*table.FREE, *table.OWNED, *table.GONE, *OWN]
    assert len(names) == len(set(names))


def test_flags_may_be_yes_and_no() -> None:
    train = {"tf32": "yes", "use_cache": "off", "report_to": "no", "skip_memory_metrics": "maybe"}
    table.read_flags(train)
    kept = {"report_to": "no", "skip_memory_metrics": "maybe"}
    assert train == {"tf32": True, "use_cache": False, **kept}


def test_every_name_that_is_refused_or_read_is_one_of_the_tables() -> None:
    known = {*table.FREE, *table.OWNED, *table.GONE, *OWN, *old_names.RENAMED}
    script = {"processing_class", "tokenizer", "tokenizer_name", "tokenizer_name_or_path"}
    harmless = {"overwrite_output_dir", "include_tokens_per_second", "warmup_ratio"}
    assert set(old_names.TRAIN) - known == script | harmless


def test_what_schedulers_take_is_that_of_the_installed_transformers() -> None:
    import inspect

    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION as MADE_BY
    from transformers.trainer_utils import SchedulerType

    # what the trainer gives
    given = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    for name, takes in rules_further.SCHEDULER_TAKES.items():
        parameters = inspect.signature(MADE_BY[SchedulerType(name)]).parameters
        assert set(takes) == set(parameters) - given, name
    assert set(table.SCHEDULERS) == {
        *rules_further.SCHEDULER_TAKES,
        *rules_further.WATCHES_EVALUATION,
    }


def test_words_of_further_keys_are_those_of_the_installed_transformers() -> None:
    from transformers.debug_utils import DebugOption
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.trainer_pt_utils import AcceleratorConfig
    from transformers.trainer_utils import HubStrategy
    from transformers.training_args import trainer_log_levels

    choices = {key: set(words) for key, words in rules_further.CHOICES.items()}
    assert choices["report_to"] == {"all", "none", *INTEGRATION_TO_CALLBACK}
    assert choices["log_level"] == set(trainer_log_levels)
    assert choices["hub_strategy"] == {option.value for option in HubStrategy}
    assert choices["debug"] == {option.value for option in DebugOption}
    found = {field.name for field in dataclasses.fields(AcceleratorConfig)}
    assert set(rules_further.ACCELERATOR_KEYS) == found
