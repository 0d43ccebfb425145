"""The format of Data.fs: what an implementation has to know, in one place.

Numbers are unsigned and big-endian, positions count bytes from the start of the file.

    file        4 bytes  magic: FS30, or FS21 when Python 2 made it (the rest is the same)
                then transactions, one after the other, tids growing, until the end of the file

    transaction 8 bytes  tid
                8 bytes  length of the transaction without the repeated length at its end
                1 byte   status: " " finished; "p" finished and packed; "u" undone (ignored, no longer written);
                         "c" not finished
                2 bytes  length of user
                2 bytes  length of description
                2 bytes  length of extension
                         user, description, extension
                         data records
                8 bytes  the length once more, so that the file can be walked backwards

    data record 8 bytes  oid
                8 bytes  tid, that of the transaction
                8 bytes  position of the object's previous data record, 0 if there is none
                8 bytes  position of the transaction that this record is in
                2 bytes  zero (once the length of a version's name)
                8 bytes  length of the data; 0 for a record without data of its own
                         the data; or, when the length is 0, 8 bytes: the back pointer

A back pointer is the position of an earlier data record of the same object whose data this one repeats (undo writes
such); it may itself have a back pointer. A back pointer of 0 says that from this transaction on the object does not
exist. When a transaction holds two records of one object, the last one counts.

What a crash can leave behind. Transactions are appended with the status "c", synced, then marked " ", then synced, and
nothing is appended before that. So only the tail can be incomplete: a transaction with the status "c" and everything
after it, or, when the system wrote pages out of order before a power cut, bytes that make no transaction. Such a tail
was never acknowledged. What ends in a whole finished transaction is no tail but damage.

Source: ZODB's FileStorage, whose files these are.
"""

from struct import Struct

__all__ = [
    "DATA_HEADER",
    "DATA_HEADER_SIZE",
    "FINISHED_STATUSES",
    "LENGTH",
    "LENGTH_SIZE",
    "MAGIC",
    "MAGICS",
    "MAGIC_SIZE",
    "STATUS_FINISHED",
    "STATUS_OFFSET",
    "STATUS_PACKED",
    "STATUS_UNDONE",
    "STATUS_UNFINISHED",
    "TRANSACTION_HEADER",
    "TRANSACTION_HEADER_SIZE",
]

MAGIC = b"FS30"
"""What new files start with."""

MAGICS = (MAGIC, b"FS21")
"""What files may start with."""

MAGIC_SIZE = 4

TRANSACTION_HEADER = Struct(">8sQcHHH")
"""tid, length, status, lengths of user, description and extension."""

TRANSACTION_HEADER_SIZE = 23

DATA_HEADER = Struct(">8s8sQQHQ")
"""oid, tid, previous record, transaction, zero, length of the data."""

DATA_HEADER_SIZE = 42

LENGTH = Struct(">Q")
"""A length or a position."""

LENGTH_SIZE = 8

STATUS_OFFSET = 16
"""Where a transaction's status stands, from the transaction's start."""

STATUS_FINISHED = b" "
STATUS_PACKED = b"p"
STATUS_UNDONE = b"u"
STATUS_UNFINISHED = b"c"

FINISHED_STATUSES = (STATUS_FINISHED, STATUS_PACKED, STATUS_UNDONE)
"""The statuses of transactions that are never cut off."""
