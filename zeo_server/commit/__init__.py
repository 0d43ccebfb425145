"""How transactions of many clients become one ordered log."""
