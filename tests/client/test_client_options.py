"""Which options of ZEO's client count."""

import pytest

from zeo_client.client_options import effective_options


def test_what_counts_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    options = {"storage": "main", "cache_size": 5, "wait": False, "client_label": None}
    assert effective_options("here", options) == {"storage": "main", "cache_size": 5, "wait": False}
    blobs = {"blob_dir": "b", "shared_blob_dir": True, "blob_cache_size": 1, "blob_cache_size_check": 5}
    assert effective_options("here", blobs) == blobs
    assert not caplog.records


def test_what_does_not_is_told(caplog: pytest.LogCaptureFixture) -> None:
    options = {"storage": "main", "realm": "x", "drop_cache_rather_verify": True, "var": None, "min_disconnect_poll": 0}
    assert effective_options("<zeoclient>", options) == {"storage": "main"}
    [record] = caplog.records
    assert record.getMessage() == "<zeoclient>: realm, drop-cache-rather-verify: no effect"
