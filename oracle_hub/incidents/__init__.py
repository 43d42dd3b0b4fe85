"""Oracle disasters of the past as runnable cases: scripts, and a player over hub and alert engine."""
