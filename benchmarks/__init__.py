"""One script a question; see `make bench`."""
