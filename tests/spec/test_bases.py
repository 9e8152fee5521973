from __future__ import annotations

import pytest

from clusterlm.spec.bases import BASES, DEFAULT_BASE, NEEDS, known_base, limits_of, nearest


def ngc(tag: str) -> str:
    return f"nvcr.io/nvidia/pytorch:{tag}-py3"


def test_the_default_is_the_base_of_the_slides() -> None:
    base = known_base(DEFAULT_BASE)
    assert base is not None
    assert (base.python, base.torch) == ("3.10", "2.5.0a0+872d972e41")
    assert (base.cuda, base.nccl, base.ubuntu) == ("12.6", "2.22.3", "22.04")


@pytest.mark.parametrize(
    "image",
    [
        "registry.example:5000/mirror/nvidia/pytorch:24.08-py3",
        f"{DEFAULT_BASE}@sha256:{'0' * 64}",
        "nvcr.io/nvidia/pytorch:24.08-py3-igpu",
    ],
)
def test_a_base_is_known_by_the_end_of_its_name(image: str) -> None:
    assert known_base(image) is BASES["24.08"]


@pytest.mark.parametrize("image", ["nvcr.io/nvidia/pytorch:99.01-py3", "team/pytorch:24.08-py3"])
def test_of_an_unknown_base_nothing_is_said(image: str) -> None:
    assert known_base(image) is None
    assert limits_of(image) == {}
    assert nearest(image, "transformers", "==5.23.0") is None


def test_the_table_is_in_the_order_of_time() -> None:
    assert list(BASES) == sorted(BASES)
    numbers = [int(base.torch.split(".")[1]) for base in BASES.values()]
    assert numbers == sorted(numbers)


def test_needs_only_grow() -> None:
    for needs in NEEDS.values():
        since = [tuple(map(int, need.since.split("."))) for need in needs]
        assert since == sorted(since)
        before = [tuple(map(int, need.before.split("."))) for need in needs]
        assert all(last < first for last, first in zip(before, since, strict=True))


@pytest.mark.parametrize(
    ("tag", "specifiers"),
    [
        ("24.08", ""),
        ("24.08", "==5.14.1"),
        ("24.08", ">=4.57,<6"),
        ("24.08", "<5.24"),
        ("24.08", "==5.*"),
        ("24.08", "!=5.23.0"),
        ("25.01", "==5.19.0"),
        ("25.02", "==5.23.0"),
    ],
)
def test_what_the_base_can_hold_is_not_refused(tag: str, specifiers: str) -> None:
    assert nearest(ngc(tag), "transformers", specifiers) is None


@pytest.mark.parametrize(
    ("tag", "specifiers", "instead"),
    [
        ("24.08", "==5.23.0", "5.14.1"),
        ("24.08", ">=5.15", "5.14.1"),
        ("24.08", "~=5.21.0", "5.14.1"),
        ("24.08", "==5.21.*", "5.14.1"),
        ("24.08", ">5.22,<6", "5.14.1"),
        ("24.08", "===5.23.0rc1", "5.14.1"),
        ("24.05", "==5.1.0", "5.0.0"),
        # its torch is 2.6.0a0, older than the 2.6 that is wanted
        ("25.01", "==5.20.0", "5.19.0"),
    ],
)
def test_an_impossible_version_is_refused_with_the_nearest(
    tag: str, specifiers: str, instead: str
) -> None:
    message = nearest(ngc(tag), "transformers", specifiers)
    assert message is not None
    assert f"write transformers=={instead}" in message


def test_the_oldest_base_that_would_do_is_named() -> None:
    assert "base: nvcr.io/nvidia/pytorch:24.11-py3" in str(nearest(ngc("24.08"), "numpy", ">=2.3"))
    wish = nearest(ngc("24.08"), "transformers", "==5.15.0")
    assert "base: nvcr.io/nvidia/pytorch:24.11-py3" in str(wish)
    assert "2.5.0a0, which counts as older than 2.5" in str(wish)


def test_limits_are_where_the_first_impossible_version_begins() -> None:
    assert limits_of(DEFAULT_BASE) == {"transformers": "5.15.0", "numpy": "2.3.0"}
    assert limits_of(ngc("26.06")) == {}
