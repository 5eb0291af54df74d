from nightshift.routes import pauses
from nightshift.routes.health import Health, claimed, reported, trouble_of


def test_pause_grows_with_the_place() -> None:
    found = [pauses.in_queue(ahead) for ahead in range(30)]
    assert found == sorted(found)
    assert found[0] <= 10
    assert found[-1] == pauses.LONGEST


def test_a_day_of_the_longest_pauses_costs_less_than_a_cent() -> None:
    # Three transitions of Step Functions, and a tenth of a second of half a GiB.
    visit = 3 * 0.000025 + 0.1 * 0.5 * 0.0000133334
    assert 86_400 / pauses.LONGEST * visit < 0.01


def test_the_first_comes_when_the_probe_is_due() -> None:
    health = reported(Health(), trouble_of(401, "no"), "w", 100.0)
    assert pauses.until_probe(health, 0, 100.0) == 6
    assert pauses.until_probe(health, 3, 100.0) == 96
    assert pauses.until_probe(claimed(health, "p", 105.0, 60.0), 0, 105.0) == 61


def test_paused_route_is_looked_at_rarely() -> None:
    assert [pauses.while_paused(ahead) for ahead in (0, 1, 2, 99)] == [300, 600, 900, 900]
