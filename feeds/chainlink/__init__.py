"""Chainlink: the store program on Solana, and Data Streams."""
