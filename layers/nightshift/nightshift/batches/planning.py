"""A batch's plan: its file cut into chunks, written as the tasks that the Distributed Map reads."""

from nightshift.batches.record import Batch, Planned
from nightshift.core.errors import NotFoundError
from nightshift.files import store as files
from nightshift.input import inspection, layout, plan
from nightshift.input.inspection import Inspected
from nightshift.input.layout import Segment
from nightshift.input.plan import Task
from nightshift.routes.route import Route


def planned(account_id: str, batch_id: str, inspected: Inspected) -> tuple[Planned, list[Task]]:
    """What a batch records of its plan, for a file that was inspected, and the tasks that are the plan."""
    tasks = _tasks(account_id, batch_id, inspected.segments, inspected.route)
    route = inspected.route
    return Planned(inspected.model, inspected.lines, len(tasks), route, layout.segment_lines(route)), tasks


def write_plan(account_id: str, batch_id: str, inspected: Inspected) -> Planned:
    """Write the tasks of a file that was inspected, and return what the batch records of them."""
    found, tasks = planned(account_id, batch_id, inspected)
    plan.write(batch_id, tasks)
    return found


def tasks_of(batch: Batch) -> list[Task]:
    """The batch's tasks, from its plan, or from its input where the plan was deleted; none without either."""
    return plan.read(batch.id) or _plan_again(batch)


def ensure_plan(batch: Batch) -> list[Task]:
    """The batch's tasks, from its plan, which is written again if it was deleted."""
    tasks = plan.read(batch.id)
    if tasks is None:
        tasks = _plan_again(batch)
        plan.write(batch.id, tasks)
    return tasks


def _plan_again(batch: Batch) -> list[Task]:
    if batch.plan is None:
        return []
    try:
        file = files.get(batch.account_id, batch.input_file_id)
        segment = layout.segment_of(batch.plan.route, batch.plan.segment_lines)
        segments = inspection.segments_of(file, batch.endpoint, segment)
    except NotFoundError:
        return []
    return _tasks(batch.account_id, batch.id, segments, batch.plan.route)


def _tasks(account_id: str, batch_id: str, segments: list[Segment], route: Route) -> list[Task]:
    if route.mode == "batch":
        shares = layout.capped_chunks(segments, layout.caps_of(route))
    else:
        shares = layout.chunks(segments, route.max_concurrency)
    return [Task(account_id, batch_id, chunk, share) for chunk, share in enumerate(shares)]
