"""The workers' side: job functions, the timeout wrapper, and the process that runs chunks."""
