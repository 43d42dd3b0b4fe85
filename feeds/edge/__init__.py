"""Edge, Chaos Labs' oracle: its signed messages."""
