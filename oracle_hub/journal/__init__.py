"""Truth on disk: every input as it came, and what was decided from it."""
