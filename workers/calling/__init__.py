"""A job's call: where it runs, what surrounds it, and what it may ask and tell while it runs."""
