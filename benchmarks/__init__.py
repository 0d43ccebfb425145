"""zeod side by side with its peers and with the machine's limits, in one run: `make bench`."""
