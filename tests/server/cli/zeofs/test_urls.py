"""zeo:// URLs."""

import pytest

from zeo_core.errors import ConfigurationError
from zeo_server.cli.zeofs.urls import DEFAULT_PORT, ServedAt, parse_zeo_url


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("zeo://here", ServedAt(("here", DEFAULT_PORT), "1")),
        ("zeo://here:8100/main", ServedAt(("here", 8100), "main")),
        ("zeo://[::1]:8100/a%20b", ServedAt(("::1", 8100), "a b")),
        ("zeo://here?storage=main", ServedAt(("here", DEFAULT_PORT), "main")),
        ("zeo:///run/zeod%20socket", ServedAt("/run/zeod socket", "1")),
        ("zeo:///run/socket?storage=main", ServedAt("/run/socket", "main")),
    ],
)
def test_what_they_mean(where: str, expected: ServedAt) -> None:
    assert parse_zeo_url(where) == expected


@pytest.mark.parametrize("where", ["zeo://", "zeo:///", "zeo://here:port", "zeo://:8100"])
def test_what_means_nothing(where: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot open"):
        parse_zeo_url(where)
