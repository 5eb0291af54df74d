"""The check of an input file, line by line, and the byte offsets of its lines for the plan."""

import hashlib

import msgspec

from nightshift.core.errors import Fault, InvalidFileError
from nightshift.input.line_check import MAX_LINE_BYTES, check_line, identify, quote
from nightshift.routes.endpoint import DEFAULT, ENDPOINTS, EndpointPath

MAX_LINES = 50_000
MAX_FILE_BYTES = 200 * 1024 * 1024
MAX_FAULTS = 100
# So many blank lines at the end of a file are no lines; more are faults.
MAX_BLANK_LINES = 1_000

# A longer custom_id is remembered as its digest, so that long ids cannot fill the memory.
_REMEMBERED_ID_LENGTH = 64


class FileCheck:
    """Checks a file that arrives in blocks of any size. It holds one block and one line in memory at most.

    After ``finish()``: ``faults`` has at most ``MAX_FAULTS`` entries, and ``stopped`` is True if the rest of the file
    was not checked; ``model`` is that of line ``model_line``, the first with a valid one; ``ends`` has the byte offset
    at which each line ends, its newline included.
    """

    def __init__(self, endpoint: EndpointPath = DEFAULT) -> None:
        self.faults: list[Fault] = []
        self.model: str | None = None
        self.ends: list[int] = []
        self.stopped = False
        self._endpoint = ENDPOINTS[endpoint]
        self._inputs = 0  # of all lines so far, where the endpoint has a limit
        self._rest = b""
        self._offset = 0
        self._blank: list[int] = []  # bytes of the last lines, which are blank: no lines at the end of the file
        self._custom_ids: set[str | bytes] = set()
        self.model_line = 0
        self._model_mismatches = 0  # how many of ``faults`` are about a second model

    @property
    def lines(self) -> int:
        """How many lines were read."""
        return len(self.ends)

    def feed(self, block: bytes) -> None:
        """Check the lines that end in ``block``, the next bytes of the file."""
        if self.stopped:
            return
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._check(line, 1)
            if self.stopped:
                return
        # The start of a line shows that the line is too long, so the rest of it is not kept.
        self._rest = self._rest[: MAX_LINE_BYTES + 1]

    def finish(self) -> None:
        """Check what follows the last newline, as a line if it is not empty."""
        if self._rest and not self.stopped:
            self._check(self._rest, 0)
        self._rest = b""
        if not self.ends and not self.faults:
            self.faults.append(Fault("empty_file", "The file is empty."))

    def verdict(self) -> str:
        """The model of a valid file, after ``finish()``.

        Raises:
            InvalidFileError: ``batch_invalid_jsonl`` or ``batch_multiple_models``, with every fault found.
        """
        if self.model is not None and not self.faults:
            return self.model
        code, problem = "batch_invalid_jsonl", "The input file is not valid."
        if len(self.faults) == self._model_mismatches:
            code, problem = "batch_multiple_models", "The input file has more than one model; a batch has one."
        raise InvalidFileError(f"{problem} {self._summary()}", code=code, details=self.faults)

    def _summary(self) -> str:
        """The first fault, and how many there are."""
        first = self.faults[0]
        summary = first.message if first.line is None else f"Line {first.line}: {first.message}"
        if len(self.faults) == 1:
            return summary
        count = f"at least {MAX_FAULTS}" if len(self.faults) == MAX_FAULTS else str(len(self.faults))
        return f"{summary} There are {count} problems in all; error.details lists them."

    def _check(self, line: bytes, newline: int) -> None:
        """Check the next line, which ends with ``newline`` bytes more."""
        if not line.strip():
            self._blank.append(len(line) + newline)
            if len(self._blank) > MAX_BLANK_LINES:
                self._check_blank()
            return
        self._check_blank()
        number = len(self.ends) + 1
        if number > MAX_LINES:
            message = f"The file has more than {MAX_LINES} lines; split it into several batches."
            self.faults.append(Fault("invalid_request", message, line=number))
            self.stopped = True
            return
        self._offset += len(line) + newline
        self.ends.append(self._offset)
        identity: tuple[str | None, str | None, int] | None = identify(line, self._endpoint)
        if identity is None:
            report = check_line(line, self._endpoint)
            for fault in report.faults:
                self._add(msgspec.structs.replace(fault, line=number))
            identity = report.custom_id, report.model, report.inputs
        custom_id, model, inputs = identity
        self._inputs += inputs
        if custom_id is not None:
            self._check_custom_id(number, custom_id)
        if model is not None and model != self.model:
            self._check_model(number, model)
        most = self._endpoint.max_inputs
        if most is not None and self._inputs > most:
            message = f"The file has more than {most} inputs; split it into several batches."
            self._add(Fault("invalid_request", message, f"body.{self._endpoint.prompt}", number))
            self.stopped = True

    def _check_blank(self) -> None:
        """Record the blank lines so far, because a line follows them."""
        blank, self._blank = self._blank, []
        for size in blank:
            self._offset += size
            self.ends.append(self._offset)
            for fault in check_line(b"", self._endpoint).faults:
                self._add(msgspec.structs.replace(fault, line=len(self.ends)))

    def _check_custom_id(self, number: int, custom_id: str) -> None:
        key = custom_id if len(custom_id) <= _REMEMBERED_ID_LENGTH else _digest(custom_id)
        if key in self._custom_ids:
            message = f"Duplicate custom_id: {quote(custom_id)} is used by an earlier line."
            self._add(Fault("duplicate_custom_id", message, "custom_id", number))
        self._custom_ids.add(key)

    def _check_model(self, number: int, model: str) -> None:
        if self.model is None:
            self.model, self.model_line = model, number
            return
        message = f"The model {quote(model)} does not match the model {quote(self.model)} of line {self.model_line}."
        if self._add(Fault("model_mismatch", message, "body.model", number)):
            self._model_mismatches += 1

    def _add(self, fault: Fault) -> bool:
        """Record a fault; False if there are ``MAX_FAULTS`` already."""
        if len(self.faults) == MAX_FAULTS:
            return False
        self.faults.append(fault)
        self.stopped = self.stopped or len(self.faults) == MAX_FAULTS
        return True


def _digest(custom_id: str) -> bytes:
    return hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
