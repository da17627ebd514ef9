"""A worker process's life: its pulse, what it counts, how it ends, and what it leaves behind."""
