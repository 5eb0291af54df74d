"""Limits that callers meet in more than one place."""

# The largest body of one call. Lambda accepts events of 6 MB, and API Gateway encodes binary bodies in base64, which
# adds a third.
MAX_CALL_BYTES = 4_500_000
