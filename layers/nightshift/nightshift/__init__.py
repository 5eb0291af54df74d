"""Nightshift: a serverless Batch API. One line in, one line out, in order, whatever happens."""
