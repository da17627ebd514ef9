"""What crosses Redis, and nothing else: jobs, results, batches, key names, scripts. Imports neither side."""
