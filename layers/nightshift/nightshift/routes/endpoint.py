"""The endpoints that a batch can be for, and all that differs between them. Another endpoint is another row.

What does not differ is written for all at once: ``model`` and ``usage`` stand at the top of a result, and ``usage`` has
one of two sets of names (``results.completion``).
"""

from typing import Literal

from msgspec import Struct

EndpointPath = Literal["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations"]
_TEXT_OR_LIST = ("a string", "an array")


class Endpoint(Struct, frozen=True):
    """One endpoint. ``path`` is the ``url`` of its lines and the ``endpoint`` of its batches.

    ``prompt`` is the field of a line's body that holds the prompt, and ``prompt_kinds`` are the JSON types that it may
    have. ``refused`` are the fields of the body that must not be true. ``max_inputs`` bounds the inputs of all lines
    of a batch: a prompt that is an array may be several.
    """

    path: EndpointPath
    prompt: str
    prompt_kinds: tuple[str, ...]
    refused: tuple[str, ...] = ("stream",)
    max_inputs: int | None = None

    @property
    def upstream_path(self) -> str:
        """The path under a provider's ``base_url``, which has the version."""
        return self.path.removeprefix("/v1")


DEFAULT: EndpointPath = "/v1/chat/completions"

ENDPOINTS: dict[EndpointPath, Endpoint] = {
    row.path: row
    for row in (
        Endpoint(DEFAULT, "messages", ("an array",)),
        Endpoint("/v1/responses", "input", _TEXT_OR_LIST, refused=("stream", "background")),
        # OpenAI's limit of a batch.
        Endpoint("/v1/embeddings", "input", _TEXT_OR_LIST, max_inputs=50_000),
        Endpoint("/v1/completions", "prompt", _TEXT_OR_LIST),
        Endpoint("/v1/moderations", "input", _TEXT_OR_LIST),
    )
}
