"""Limits that callers meet in more than one place."""

# One call's body. Lambda takes an event of 6 MB, and API Gateway hands binary bodies over in base64, a third longer.
MAX_CALL_BYTES = 4_500_000
