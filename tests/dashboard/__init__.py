"""Tests of the dashboard: its arithmetic, its pages, and the pages in a browser."""
