"""The fixtures of the tests live in plug-ins with a name that says what they start."""

pytest_plugins = [
    "tests.fixtures_peer",
    "tests.fixtures_runzeo",
    "tests.fixtures_small_disk",
    "tests.fixtures_tls",
    "tests.fixtures_transaction",
    "tests.fixtures_zeod",
]
