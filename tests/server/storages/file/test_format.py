"""The sizes that the format's docstring names."""

from zeo_server.storages.file import format as fmt


def test_headers_have_the_sizes_that_the_format_says() -> None:
    assert fmt.TRANSACTION_HEADER.size == fmt.TRANSACTION_HEADER_SIZE == 23
    assert fmt.DATA_HEADER.size == fmt.DATA_HEADER_SIZE == 42
    assert fmt.LENGTH.size == fmt.LENGTH_SIZE == 8
    assert {len(magic) for magic in fmt.MAGICS} == {fmt.MAGIC_SIZE}
    assert fmt.MAGIC in fmt.MAGICS


def test_the_status_stands_where_it_is_patched() -> None:
    header = fmt.TRANSACTION_HEADER.pack(b"t" * 8, 1, fmt.STATUS_UNFINISHED, 0, 0, 0)
    assert header[fmt.STATUS_OFFSET : fmt.STATUS_OFFSET + 1] == fmt.STATUS_UNFINISHED
    assert fmt.STATUS_UNFINISHED not in fmt.FINISHED_STATUSES
