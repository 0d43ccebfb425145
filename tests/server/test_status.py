import json
import time

from zeo_core.ids import pack_id
from zeo_server.status import Counters, StorageStatus, status_json

ZEO_KEYS = {
    "loads",
    "stores",
    "commits",
    "aborts",
    "active_txns",
    "conflicts",
    "conflicts_resolved",
    "start",
    "connections",
    "waiting",
    "lock_time",
    "last-transaction",
    "timeout-thread-is-alive",
}


def frozen(*, locked_for_s: float | None = None, timeout_enabled: bool = True) -> StorageStatus:
    counters = Counters()
    counters.loads = 7
    status = StorageStatus.of(
        counters,
        connections=2,
        waiting=1,
        locked_for_s=locked_for_s,
        last_tid=pack_id(0xABC),
        timeout_enabled=timeout_enabled,
    )
    counters.loads = 8  # a snapshot does not move
    return status


def test_the_keys_are_those_of_zeo() -> None:
    assert set(frozen().as_map()) == ZEO_KEYS


def test_the_figures() -> None:
    figures = frozen().as_map()
    assert (figures["loads"], figures["connections"], figures["waiting"]) == (7, 2, 1)
    assert figures["last-transaction"] == "0000000000000abc"
    assert figures["lock_time"] is None
    assert figures["timeout-thread-is-alive"] is True
    assert frozen(timeout_enabled=False).as_map()["timeout-thread-is-alive"] == "stub"


def test_lock_time_is_a_point_in_time() -> None:
    since = frozen(locked_for_s=5.0).as_map()["lock_time"]
    assert isinstance(since, float)
    assert 4 < time.time() - since < 60


def test_json_has_every_storage() -> None:
    status = json.loads(status_json({"1": frozen(), "temp": frozen()}))
    assert set(status) == {"1", "temp"}
    assert status["1"]["loads"] == 7
