"""Models of the hub where there is no network."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from clusterlm.errors import TrainError
from clusterlm.train import hub
from clusterlm.train.loaded import load_target
from clusterlm.train.target import Target


def test_a_model_that_is_out_of_reach_says_how_to_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda environ: False)
    target = Target("owner/name of the hub", "owner/name", "owner/name")
    with pytest.raises(TrainError, match="hf download owner/name --local-dir FOLDER"):
        load_target(target)
    assert not hub.is_out_of_reach(str(tmp_path))


def test_whether_the_hub_answers_is_asked_at_its_own_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert hub.hub_answers({"HF_ENDPOINT": here})
        assert not hub.hub_answers({"HF_ENDPOINT": here, "HF_HUB_OFFLINE": "1"})
    assert not hub.hub_answers({"HF_ENDPOINT": here})
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy:1"})
    assert hub.hub_answers({"HF_ENDPOINT": here})
