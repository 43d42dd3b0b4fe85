"""The subscriber protocol. Pure: messages, the ring of batches, and one subscriber's session."""
