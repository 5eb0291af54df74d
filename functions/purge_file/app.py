"""The stream of ``Files``: a record that goes, deleted or expired, takes its bytes along."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core import table
from nightshift.core.log import logger
from nightshift.files import store as files


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes DynamoDB stream records of removed items; answers with the first that must be tried again, if any."""
    for record in event["Records"]:
        gone = table.decode(record["dynamodb"]["Keys"])
        if record["eventName"] == "REMOVE" and gone["sk"].startswith("file_"):
            try:
                files.purge(gone["pk"], gone["sk"])
            except Exception:
                logger.exception("bytes not removed", file_id=gone["sk"])
                return {"batchItemFailures": [{"itemIdentifier": record["dynamodb"]["SequenceNumber"]}]}
            logger.info("bytes removed", file_id=gone["sk"])
    return {"batchItemFailures": []}
