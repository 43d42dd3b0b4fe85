"""The page at ``/``: prices with their leases, charts and health, for people. Plain files, no build step."""
