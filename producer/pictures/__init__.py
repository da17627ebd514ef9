"""A batch drawn and summed up for people."""
