"""Pyth: the receiver's accounts on Solana, the legacy push accounts, and Hermes."""
