"""The producers' side: submit batches, collect results."""
