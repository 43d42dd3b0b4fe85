"""Measurements that publish the losing numbers too: ``python -m benchmarks.NAME [--json]``."""
