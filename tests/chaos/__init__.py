"""Chaos: real workers on a real Redis, faults drawn from a seed, and a checker that believes only what it reads."""
