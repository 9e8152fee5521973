"""docs/clusters.md: its example is right and shows every key."""

from __future__ import annotations

import re
from pathlib import Path

from clusterlm.spec.base import Spec
from clusterlm.spec.clusters import parse_clusters
from clusterlm.spec.fabrics import FABRICS
from clusterlm.spec.profile import Profile

PAGE = Path(__file__).parents[2] / "docs" / "clusters.md"


def test_the_example_is_right_and_has_every_key() -> None:
    text = PAGE.read_text()
    (example,) = re.findall(r"```yaml\n(clusters:.*?)```", text, re.DOTALL)
    profile = parse_clusters(example, "docs/clusters.md")["mycluster"]
    assert _unset(profile) == []


def test_every_fabric_is_on_the_page() -> None:
    text = PAGE.read_text()
    for fabric in FABRICS:
        assert f"`{fabric}`" in text


def _unset(section: Spec) -> list[str]:
    missing = set(type(section).model_fields) - section.model_fields_set
    for value in dict(section).values():
        if isinstance(value, Spec):
            missing |= set(_unset(value))
    return sorted(missing)


def test_every_key_of_a_profile_is_explained_where_it_is_defined() -> None:
    source = Path(__file__).parents[2] / "clusterlm" / "spec" / "profile.py"
    own = source.read_text().partition("class Profile(Spec)")[2]
    for name in Profile.model_fields:
        assert re.search(rf'\n    {name}: .*\n    """', own), name
