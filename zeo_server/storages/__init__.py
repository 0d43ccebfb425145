"""The storages that zeod serves, usable in a program without a server too."""
