"""Delivery of alerts: each channel has its own queue, its own task and its own troubles."""
