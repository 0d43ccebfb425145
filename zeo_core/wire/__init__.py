"""Framing, encoding, the methods and the state machine of the M5 protocol: bytes in, events and bytes out."""
