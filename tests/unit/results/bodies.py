"""JSON bodies as upstreams and callers may write them, and output lines."""

import json
from typing import Any

from hypothesis import strategies as st
from nightshift.results.line import OutputLine
from nightshift.results.usage import Usage


class Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object as written: keys may come twice."""


space = st.sampled_from(["", "", " ", "\n", "\r\n\t", "  "])
keys = st.sampled_from(["model", "Model", "models", "mod", "x", "", 'say "model"', "\\", "é"]) | st.text(max_size=4)
texts = st.text(max_size=8) | st.sampled_from(["model", '"model"', '\\"model":', "{}[],:", "\\", "\u2028\U0001f600"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=3).map(Pairs),
    max_leaves=10,
)


def write_string(text: str, draw: st.DrawFn) -> str:
    style = draw(st.sampled_from(["ascii", "utf-8", "escaped"]))
    if style == "escaped" and all(ord(char) < 0x10000 for char in text):
        form = draw(st.sampled_from(["\\u{:04x}", "\\u{:04X}"]))
        return (
            '"'
            + "".join(form.format(ord(char)) if draw(st.booleans()) else json.dumps(char)[1:-1] for char in text)
            + '"'
        )
    return json.dumps(text, ensure_ascii=style == "ascii")


def write(value: Any, draw: st.DrawFn, model: str | None = None) -> str:
    """``value`` as JSON in some style. With ``model``, top-level fields of that name have that value written."""
    if isinstance(value, Pairs):
        members = []
        for key, inner in value:
            written = json.dumps(model) if model is not None and key == "model" else write(inner, draw)
            members.append(f"{draw(space)}{write_string(key, draw)}{draw(space)}:{draw(space)}{written}{draw(space)}")
        return "{" + (",".join(members) or draw(space)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(draw(space) + write(inner, draw) + draw(space) for inner in value) + "]"
    return write_string(value, draw) if isinstance(value, str) else json.dumps(value)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    members = draw(st.lists(st.tuples(keys, values), max_size=5))
    for _ in range(draw(st.integers(0, 2))):
        members.insert(draw(st.integers(0, len(members))), ("model", draw(values)))
    return (draw(space) + write(Pairs(members), draw) + draw(space)).encode()


def read(body: bytes) -> Pairs:
    found: Pairs = json.loads(body, object_pairs_hook=Pairs)
    return found


usages = st.none() | st.builds(Usage, *[st.integers(0, 10**12)] * 5)
output_lines = st.builds(
    lambda number, text, answered, usage, other: OutputLine(
        number, json.dumps({"text": text}, ensure_ascii=other).encode(), answered, usage
    ),
    st.integers(0, 49_999),
    st.text(max_size=10) | st.sampled_from(["\u2028\u0085\x0b\x0c\x1c", "]\n["]),
    st.booleans(),
    usages,
    st.booleans(),
)
