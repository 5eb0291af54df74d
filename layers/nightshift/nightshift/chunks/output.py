"""The output line of a request whose answer is final."""

from nightshift.chunks.chunk import Chunk
from nightshift.chunks.line_queue import Line
from nightshift.core.ids import request_line_id
from nightshift.results.completion import replace_model, usage_of
from nightshift.results.line import OutputLine, answered_line, failed_line
from nightshift.upstream.answer import FAILURES, Answer


def output_line(chunk: Chunk, line: Line, answer: Answer) -> OutputLine:
    """``answer`` under the caller's name of the model, or the failure's code and message."""
    if answer.failure is not None:
        code, message = FAILURES[answer.failure]
        return failed_line(chunk.batch_id, line.number, line.custom_id, code, message)
    line_id = request_line_id(chunk.batch_id, line.number)
    return answered_line(
        chunk.batch_id,
        line.number,
        line.custom_id,
        answer.status,
        answer.request_id or line_id.replace("batch_req_", "req_"),
        replace_model(answer.body, chunk.model),
        usage_of(answer.body),
    )
