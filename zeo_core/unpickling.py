"""A guard for unpickling what strangers wrote."""

from io import BytesIO
from pickletools import genops

__all__ = ["check_memo"]

_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


def check_memo(pickled: bytes, pickles: int = 1) -> None:
    """Raise ValueError if a few bytes would make a large memo: the unpickler's is an array up to the largest index.

    Looks at the first of the pickles in `pickled`, or at as many as told. No honest pickle has an index above its own
    length. Costs about a microsecond an opcode, which is too much for every record of a database but not for a
    stranger's few.
    """
    stream = BytesIO(pickled)
    for _ in range(pickles):
        for opcode, argument, _ in genops(stream):
            if opcode.name in _PUTS and argument is not None and int(argument) > len(pickled):
                raise ValueError(f"memo index {argument}")
