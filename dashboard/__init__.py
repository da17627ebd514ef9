"""The batches of a Redis in a browser: read-only pages, live, and actions for who has the token."""
