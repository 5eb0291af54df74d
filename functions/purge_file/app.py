"""The stream of ``Files``: when a file's record is deleted or expires, its bytes are deleted too."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core.log import logger
from nightshift.files import store as files


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Takes DynamoDB stream records of removed items; returns the first that has to be tried again, if any."""
    for record in event["Records"]:
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
