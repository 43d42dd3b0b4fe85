"""Carries bytes between sources and the hub. The only room that opens connections to oracles."""
