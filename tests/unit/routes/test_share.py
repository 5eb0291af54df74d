from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from nightshift.routes.lease import Lease
from nightshift.routes.share import PORTION, TURN_SECONDS, ahead_of, share_out


def lease(
    account: str,
    batch: str,
    *,
    wanted: int = 256,
    weight: int = 1,
    created: int = 0,
    granted: int = 0,
    since: float = 0.0,
) -> Lease:
    return Lease(
        worker="w",
        account_id=account,
        weight=weight,
        batch_id=batch,
        batch_created_at=created,
        chunk=0,
        wanted=wanted,
        granted=granted,
        since=since,
        expires_at=1e9,
    )


def by_account(
    leases: list[Lease], limit: int, turns: dict[str, float] | None = None, now: float = 0.0
) -> dict[str, int]:
    shares = share_out(leases, limit, turns or {}, now).shares
    sums: Counter[str] = Counter()
    for each in leases:
        sums[each.account_id] += shares[each.key]
    return dict(sums)


@st.composite
def many_leases(draw: st.DrawFn) -> list[Lease]:
    weights = {account: draw(st.integers(1, 5)) for account in "abcdefgh"}
    found = []
    for number in range(draw(st.integers(0, 30))):
        account = draw(st.sampled_from("abcdefgh"))
        found.append(
            lease(
                account,
                f"b{number:02d}",
                wanted=draw(st.integers(0, 256)),
                weight=weights[account],
                created=draw(st.integers(0, 5)),
                granted=draw(st.integers(0, 64)),
                since=draw(st.floats(0, 100)),
            )
        )
    return found


turns_of_accounts = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1000))


@given(many_leases(), st.integers(1, 2000), turns_of_accounts, st.floats(0, 2000))
def test_shares_use_the_limit_and_no_more(leases: list[Lease], limit: int, turns: dict[str, float], now: float) -> None:
    shares = share_out(leases, limit, turns, now).shares
    assert sum(shares.values()) == min(limit, sum(each.wanted for each in leases))
    assert all(0 <= shares[each.key] <= each.wanted for each in leases)


@given(many_leases(), st.integers(1, 2000), turns_of_accounts, st.floats(0, 2000))
def test_at_most_one_account_has_less_than_a_portion(
    leases: list[Lease], limit: int, turns: dict[str, float], now: float
) -> None:
    got = by_account(leases, limit, turns, now)
    wanted: Counter[str] = Counter()
    for each in leases:
        wanted[each.account_id] += each.wanted
    small = [account for account, amount in got.items() if 0 < amount < min(PORTION, wanted[account])]
    assert len(small) <= 1


def test_accounts_share_equally_however_many_batches_they_have() -> None:
    leases = [lease("one", f"b{n}") for n in range(8)] + [lease("two", "b8")]
    assert by_account(leases, 64) == {"one": 32, "two": 32}


def test_what_one_does_not_want_the_others_share() -> None:
    leases = [lease("a", "b0", wanted=40), lease("b", "b1"), lease("c", "b2")]
    assert by_account(leases, 300) == {"a": 40, "b": 130, "c": 130}


def test_weight_two_gets_twice_as_much() -> None:
    assert by_account([lease("a", "b0", weight=2), lease("b", "b1")], 300) == {"a": 200, "b": 100}


def test_oldest_batch_of_an_account_comes_first() -> None:
    leases = [lease("a", "b0", created=9, wanted=50), lease("a", "b1", created=5, wanted=50)]
    assert share_out(leases, 64, {}, 0.0).shares == {("b1", 0): 50, ("b0", 0): 14}


def test_who_gets_no_portion_waits() -> None:
    leases = [lease(f"a{n}", f"b{n}", since=n) for n in range(4)]
    sharing = share_out(leases, 64, {}, 0.0)
    assert sharing.waiting == {"a2", "a3"}
    assert [ahead_of(each, leases, sharing) for each in leases] == [0, 0, 0, 1]


def test_small_limit_goes_to_one_account() -> None:
    assert by_account([lease("a", "b0", since=1.0), lease("b", "b1", since=2.0)], 5) == {"a": 5, "b": 0}


def test_turn_is_kept_until_it_is_over() -> None:
    leases = [lease("holds", "b0", granted=32, since=0.0), lease("waits", "b1", since=50.0)]
    turns = {"holds": 60.0}
    assert by_account(leases, 32, turns, 100.0) == {"holds": 32, "waits": 0}
    assert by_account(leases, 32, turns, 60.0 + TURN_SECONDS) == {"holds": 0, "waits": 32}


@given(st.integers(2, 9), st.integers(1, 3))
def test_everybody_gets_a_turn(accounts: int, served_at_once: int) -> None:
    """Turn after turn, with new batches of every account, nobody waits longer than one round."""
    limit = PORTION * served_at_once
    granted: dict[str, int] = {}
    turns: dict[str, float] = {}
    served: list[str] = []
    rounds = -(-accounts // served_at_once) + 1
    for number in range(rounds):
        now = number * TURN_SECONDS
        leases = [
            lease(f"a{n}", f"b{n}-{number}", created=number, granted=granted.get(f"a{n}", 0)) for n in range(accounts)
        ]
        granted = by_account(leases, limit, turns, now)
        turns |= {account: now for account, amount in granted.items() if amount}
        served += [account for account, amount in granted.items() if amount]
    assert set(served) == {f"a{n}" for n in range(accounts)}
