"""Files of jobs and of results: rows in, tables out."""
