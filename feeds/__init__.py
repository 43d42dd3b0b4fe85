"""The oracles that oracle-hub reads: their bytes, their addresses, their servers. Nothing here chooses a price."""
