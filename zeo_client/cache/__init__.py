"""Caches of object revisions on the client's side."""
