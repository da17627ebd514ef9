"""A job's time: the clocks that bound it, the one timer that watches them, and the promise of heartbeats."""
