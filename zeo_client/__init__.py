"""The client library: DB, Connection, ClientStorage and what they stand on."""
