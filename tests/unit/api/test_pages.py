"""A page of a list names its ends, and fits into one response."""

import msgspec
from nightshift.api.pages import MAX_PAGE_BYTES, list_object
from nightshift.api.resources import ModelResource


def models(*ids: str) -> list[ModelResource]:
    return [ModelResource(id=name, endpoints=[], prices=None) for name in ids]


def test_a_page_names_its_ends() -> None:
    page = list_object(models("a", "b"), True)
    assert (page.object, page.first_id, page.last_id, page.has_more) == ("list", "a", "b", True)
    assert page.data == models("a", "b")


def test_an_empty_page_has_no_ends() -> None:
    page = msgspec.to_builtins(list_object(models(), False))
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_page_is_cut_at_its_size() -> None:
    third = "e" * (MAX_PAGE_BYTES // 3)
    page = list_object(models(*(f"{number}{third}" for number in range(3))), False)
    assert ([model.id[0] for model in page.data], page.has_more) == (["0", "1"], True)
    assert page.last_id == page.data[1].id


def test_a_page_holds_one_entry_at_least() -> None:
    # Each é is two bytes, so one entry alone is over the limit.
    page = list_object(models(*(f"{number}{'é' * MAX_PAGE_BYTES}" for number in range(3))), False)
    assert ([model.id[0] for model in page.data], page.has_more) == (["0"], True)
