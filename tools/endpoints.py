"""botocore's list of regions, cut to the services that Nightshift calls: 47 KB in place of 1.2 MB in each cold start.

``python -m tools.endpoints`` writes it for the installed botocore. It need not be new: a region that it lacks has the
same endpoints, by rule. ``tests/unit/core/test_aws.py`` compares the clients.
"""

import json
from pathlib import Path

import botocore
from nightshift.core import aws

# How the list names the services of ``aws.SERVICES``, and those that serve an operator's credentials.
SERVICES = {
    "dynamodb",
    "s3",
    "sqs",
    "events",
    "states",
    "lambda",
    "secretsmanager",
    "sts",
    "portal.sso",
    "oidc",
    "signin",
}


def main() -> None:
    found = json.loads((Path(botocore.__file__).parent / "data" / "endpoints.json").read_text())
    for partition in found["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in services if name in SERVICES}
    (aws.DATA / "endpoints.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
