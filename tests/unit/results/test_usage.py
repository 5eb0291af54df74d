"""Tokens: their sums, and OpenAI's shape of them."""

from nightshift.results.usage import Usage


def test_usage_adds_up_field_by_field() -> None:
    total = Usage(1, 2, 3, 4, 5)
    total.add(Usage(10, 20, 30, 40, 50))
    assert total == Usage(11, 22, 33, 44, 55)


def test_usage_in_openais_shape() -> None:
    assert Usage(10, 4, 20, 5, 30).as_dict() == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 30,
    }
