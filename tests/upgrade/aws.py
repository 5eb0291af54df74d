"""As much of the AWS command line as docs/tasks.md needs: `python aws.py SERVICE OPERATION --option value …`."""

import sys

import boto3
import jmespath  # type: ignore[import-untyped]


def main() -> None:
    service, operation, *words = sys.argv[1:]
    options = dict(zip(words[::2], words[1::2], strict=True))
    query, output = options.pop("--query", None), options.pop("--output", "text")
    fields = {
        "".join(part.capitalize() for part in name.removeprefix("--").split("-")): value
        for name, value in options.items()
    }
    answer = getattr(boto3.client(service), operation.replace("-", "_"))(**fields)  # type: ignore[call-overload]
    if query:
        assert output == "text", output
        print("\t".join(jmespath.search(query, answer)))  # noqa: T201 - it is a command


if __name__ == "__main__":
    main()
