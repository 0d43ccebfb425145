"""FileStorage: ZODB's Data.fs."""
