"""How long a test waits for what has to come. Only a test that fails waits so long."""

PATIENCE_S = 90.0
"""For one message, line, answer or end. Long enough for a machine that has other work, and no judgement of how long
anything takes: a test of a time limit of ours sets every other limit beyond this."""
