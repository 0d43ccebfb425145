"""Records that are meant to do harm."""

HUNGRY = b"\x80\x03cx\nY\n.\x80\x03Nr\0\0\0\x20."
"""A few bytes for which an unpickler makes a memo of 8 GB: that of an index of 2 ** 29."""
