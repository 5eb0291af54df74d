"""Bytes without a record are deleted: at once when a record goes, and once a day where a record never came."""

import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core.log import logger
from nightshift.files import orphans
from nightshift.files import store as files


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Takes records of removed items of the stream of ``Files``; returns the first that has to be tried again, if any.

    Or takes a scheduled event.
    """
    if "Records" not in event:
        found = orphans.purge(time.time())
        logger.info("bytes without a record looked for", found=found)
    for record in event.get("Records", []):
        deleted = files.deleted_file(record)
        if deleted is None:
            continue
        account_id, file_id = deleted
        try:
            files.purge(account_id, file_id)
        except Exception:
            logger.exception("bytes not deleted", file_id=file_id)
            return {"batchItemFailures": [{"itemIdentifier": record["dynamodb"]["SequenceNumber"]}]}
        logger.info("bytes deleted", file_id=file_id)
    return {"batchItemFailures": []}
