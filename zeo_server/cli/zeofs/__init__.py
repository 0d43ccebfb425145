"""The command `zeofs`: look after the files of a database, one module for each of its commands."""
