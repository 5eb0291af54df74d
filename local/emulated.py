"""The built template as the local stack deploys it.

``template.yaml`` knows of no emulator, so that no parameter gives a stack on AWS an emulator's freedoms. All that is
changed is here; the rest is deployed as it is.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

Template = dict[str, Any]

# The emulator is served without TLS, and has no rules of Contributor Insights.
WITHOUT = ("BucketTlsOnly", "SpendByAccount")
# What functions are told through their environment, and the variable of `make up` that says it.
GIVEN = {
    "ALLOW_LOCAL_WEBHOOKS": "NIGHTSHIFT_ALLOW_LOCAL_WEBHOOKS",
    "COMPLETION_WINDOW_SECONDS": "NIGHTSHIFT_COMPLETION_WINDOW_SECONDS",
    "WEBHOOK_DELAYS": "NIGHTSHIFT_WEBHOOK_DELAYS",
}


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that every function gets, from those of `make up`."""
    # There are no wildcard names under 127.0.0.1, so buckets are named in the path.
    return {"S3_ADDRESSING_STYLE": "path"} | {name: environ[ours] for name, ours in GIVEN.items() if environ.get(ours)}


def emulated(template: Template, variables: Mapping[str, str]) -> Template:
    """A changed copy of the ``template``, whose functions get the environment ``variables`` too."""
    changed = deepcopy(template)
    for name in WITHOUT:
        del changed["Resources"][name]
    changed["Globals"]["Function"]["Environment"]["Variables"] |= variables
    # The console is not served under API Gateway's name.
    (rule,) = changed["Resources"]["Bucket"]["Properties"]["CorsConfiguration"]["CorsRules"]
    rule["AllowedOrigins"] = ["*"]
    return changed
