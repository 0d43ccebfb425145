"""The command `zeo`: everything that talks to a running server, one command a file."""
