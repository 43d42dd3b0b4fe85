"""Carries batches to subscribers: HTTP and websocket on one port."""
