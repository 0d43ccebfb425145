"""One connection to a server, and what keeps it alive."""
