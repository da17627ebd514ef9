"""Misbehaving jobs, and what must become of them."""
