"""The storage server: zeod, its storages and its tools."""
