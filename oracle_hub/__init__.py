"""oracle-hub: one chosen price per feed, with a lease, a reason and a proof."""

__version__ = "0.1.0"
