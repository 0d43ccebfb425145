"""Becoming another user; what needs root is in tests/integration/test_user.py."""

import os
import pwd

import pytest

from zeo_core.errors import ConfigurationError
from zeo_server.privileges import become, user_entry


def test_a_user_that_there_is_not() -> None:
    with pytest.raises(ConfigurationError, match="user nobody-of-that-name: there is no such user"):
        become("nobody-of-that-name")


def test_to_become_who_one_is_changes_nothing() -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    before = os.getresuid(), os.getresgid(), os.getgroups()
    become(me)
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    assert user_entry(me).pw_uid == os.geteuid()
