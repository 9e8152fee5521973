from __future__ import annotations

import re
from pathlib import Path

from clusterlm.spec.reference import render_reference

PAGE = Path(__file__).parents[2] / "docs" / "job-yaml.md"


def test_the_committed_page_is_what_the_sections_say() -> None:
    again = "python -m clusterlm.spec.reference > docs/job-yaml.md"
    assert PAGE.read_text("utf-8") == render_reference(), f"run {again}"


def test_every_link_has_its_heading() -> None:
    page = render_reference()
    links = set(re.findall(r"\]\(#([^)]*)\)", page))
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    anchors = {
        "".join(c for c in t.lower().replace(" ", "-") if c.isalnum() or c in "-_") for t in titles
    }
    assert links <= anchors
    assert len(anchors) == len(titles)
