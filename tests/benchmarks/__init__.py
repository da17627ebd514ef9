"""The benchmarks' harness: tables, medians, goals, results, pictures, processes that end; no times."""
