"""FileStorage: a database in one file, ZODB's Data.fs."""

from zeo_server.storages.file.storage import FileStorage

__all__ = ["FileStorage"]
