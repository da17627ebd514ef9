"""Other queues on Redis, each by its own best way, in an environment of its own; see `catalogue.py`."""
