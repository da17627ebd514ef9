"""Tests of a batch's whole way."""
