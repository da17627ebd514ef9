"""What changes a batch after its submission, and what ends it without a worker."""
