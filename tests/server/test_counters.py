import time

from zeo_server.counters import ClientCounters, Counters


def test_all_begin_at_zero() -> None:
    counters, client = Counters(), ClientCounters()
    assert (counters.loads, counters.commits, counters.bytes_out, counters.slow_calls) == (0, 0, 0, 0)
    assert (client.loads, client.commits, client.bytes_in, client.in_flight) == (0, 0, 0, 0)
    assert abs(time.time() - client.since_s) < 60


def test_a_commit_is_counted_with_its_times() -> None:
    counters = Counters()
    now_s = time.perf_counter()
    counters.committed(now_s - 2, now_s - 1)
    assert counters.commits == 1
    assert 2 <= counters.commit_seconds.frozen().sum < 60
    assert counters.finish_seconds.frozen().sum < counters.commit_seconds.frozen().sum


def test_the_bytes_of_who_left_are_kept() -> None:
    counters, client = Counters(), ClientCounters()
    client.bytes_in, client.bytes_out = 5, 7
    counters.left(client)
    counters.left(client)
    assert (counters.bytes_in, counters.bytes_out) == (10, 14)
