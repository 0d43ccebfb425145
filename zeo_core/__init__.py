"""What client and server must agree on: ids, errors, the storage contract, records and the wire.

Nothing here does I/O: no sockets, no threads, no files, no clock (tests/test_layout.py holds it to that).
"""
