"""The names that records have for our classes, and that nothing else in a record is touched."""

import pickletools
from io import BytesIO

from zodbpickle import pickle

from zeo_client.blob import Blob
from zeo_client.zodb_names import OWN, written_by_zodb

OURS = b"czeo_client.blob\nBlob\n"


def record(*parts: object) -> bytes:
    """Return two pickles with one memo."""
    file = BytesIO()
    pickler = pickle.Pickler(file, 3)
    pickler.dump(parts[0])
    pickler.dump(parts[1])
    return file.getvalue()


def test_the_class_is_known_by_zodbs_name() -> None:
    assert OWN["ZODB.blob", "Blob"] is Blob


def test_a_record_without_our_classes_is_left_alone() -> None:
    data = record(dict, {"a": 1})
    assert written_by_zodb(data) is data


def test_the_name_is_replaced_in_either_part() -> None:
    for data in (record(Blob, None), record(dict, [Blob, Blob]), record((Blob, 1), {"class": Blob})):
        renamed = written_by_zodb(data)
        assert renamed == data.replace(OURS, b"cZODB.blob\nBlob\n")
        assert renamed != data


def test_text_that_reads_like_the_name_stays() -> None:
    text = OURS.decode()
    assert written_by_zodb(record(dict, text)) == record(dict, text)
    renamed = BytesIO(written_by_zodb(record(dict, [text, Blob, OURS])))
    arguments = [argument for _ in range(2) for _, argument, _ in pickletools.genops(renamed)]
    assert text in arguments
    assert "ZODB.blob Blob" in arguments
    assert "zeo_client.blob Blob" not in arguments
