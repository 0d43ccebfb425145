from zeo_core.roles import ClientRole


def test_each_role_may_do_what_those_before_it_may() -> None:
    assert ClientRole.READER < ClientRole.WRITER < ClientRole.ADMIN
    assert [str(role) for role in ClientRole] == ["reader", "writer", "admin"]
