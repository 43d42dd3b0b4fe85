"""Alerts: what operators are told, from the same facts that prices are chosen from. Detection is pure."""
