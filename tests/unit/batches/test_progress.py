import msgspec
from nightshift.batches.progress import AnswerSeconds, ChunkProgress, summed
from nightshift.batches.record import RequestCounts


def test_counts_are_the_sums_over_the_chunks() -> None:
    found = summed(10, [ChunkProgress(3, 1), ChunkProgress(), ChunkProgress(2, 0)])
    assert found.counts == RequestCounts(10, 5, 1)
    assert found.answer_seconds is None
    assert summed(7, []).counts == RequestCounts(7, 0, 0)


def test_a_chunks_times_weigh_as_much_as_its_lines() -> None:
    slow, quick = AnswerSeconds(10.0, 40.0), AnswerSeconds(2.0, 4.0)
    chunks = [ChunkProgress(30, 0, quick), ChunkProgress(5, 5, slow), ChunkProgress(100, 0), ChunkProgress(0, 0, slow)]
    assert summed(200, chunks).answer_seconds == AnswerSeconds(4.0, 13.0)


def test_a_progress_of_the_version_before_is_read() -> None:
    assert msgspec.convert({"completed": 1, "failed": 2, "ttl": 5}, ChunkProgress) == ChunkProgress(1, 2)
