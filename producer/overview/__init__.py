"""What is going on beside one batch: workers, queues, running jobs, all batches."""
