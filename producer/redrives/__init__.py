"""Batches made of the jobs of other batches."""
