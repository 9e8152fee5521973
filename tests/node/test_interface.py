"""The interface and the datagrams that lead to the head node."""

from __future__ import annotations

import time

from clusterlm.node.interface import interface_towards
from clusterlm.node.net_beat import TARGET, start_net_beat
from clusterlm.supervise.listener import Listener


def test_the_way_to_this_machine_is_its_loopback() -> None:
    assert interface_towards("127.0.0.1") == "lo"


def test_an_address_without_a_route_has_no_interface() -> None:
    assert interface_towards("not an address") is None


def test_a_beat_arrives_and_a_stranger_is_not_heard() -> None:
    listener, deaf = Listener("127.0.0.1", 20711), Listener("127.0.0.1", 20712)
    try:
        assert start_net_beat({TARGET: listener.target}, node_rank=3)
        # the right place, with the word of another attempt
        place = listener.target.split()[0]
        assert start_net_beat({TARGET: f"{place} stale"}, node_rank=4)
        until = time.monotonic() + 5
        while not (heard := listener.silence(time.monotonic())) and time.monotonic() < until:
            time.sleep(0.05)
        assert set(heard) == {3}
        assert deaf.silence(time.monotonic()) == {}
    finally:
        listener.close()
        deaf.close()


def test_silence_grows_by_the_listeners_own_clock() -> None:
    listener = Listener("127.0.0.1", 20713)
    try:
        start_net_beat({TARGET: listener.target}, node_rank=0)
        time.sleep(0.3)
        now = time.monotonic()
        assert listener.silence(now)[0] < 1
        assert 99 < listener.silence(now + 100)[0] < 101
    finally:
        listener.close()


def test_without_a_listener_nothing_is_sent() -> None:
    assert not start_net_beat({}, node_rank=0)
    assert not start_net_beat({TARGET: ""}, node_rank=0)
