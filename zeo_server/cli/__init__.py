"""The commands that run where the data is."""
