// The check of a file that arrives in blocks, as the server's input/file_check.py makes it. Unlike the server's it goes
// on after the hundredth fault, because the console removes wrong lines: it keeps their numbers, and few of the faults.
import { checkLine, isBlank, quote, type Fault, type LineFault } from "./line";
import { RULES, type Endpoint } from "./rules";

export interface WrongLine {
  line: number;
  start: number; // where it begins in the file, in bytes
  end: number; // where the next one begins
  faults: LineFault[];
}

export class FileCheck {
  faults: Fault[] = [];
  model: string | null = null;
  modelLine = 0;
  lines = 0;
  wrong: WrongLine[] = [];
  private rest: Uint8Array[] = [];
  private restBytes = 0;
  private offset = 0;
  private blank: number[] = [];
  private inputs = 0;
  private stopped = false; // whether the server would read no further
  private readonly ids = new Set<string>();

  constructor(private readonly endpoint: Endpoint) {}

  feed(block: Uint8Array): void {
    let start = 0;
    for (let at = block.indexOf(10); at !== -1; at = block.indexOf(10, start)) {
      this.keep(block.subarray(start, at));
      this.check(this.taken(), 1);
      start = at + 1;
    }
    this.keep(block.slice(start));
  }

  finish(): void {
    if (this.restBytes) this.check(this.taken(), 0);
    if (!this.lines && !this.faults.length) {
      this.faults.push({ code: "empty_file", message: "The file is empty.", param: null, line: null });
    }
  }

  // A line that is too long is not kept as a whole, only its size.
  private keep(piece: Uint8Array): void {
    if (this.restBytes <= RULES.max_line_bytes) this.rest.push(piece);
    this.restBytes += piece.length;
  }

  private taken(): { line: Uint8Array; size: number } {
    const pieces = this.rest;
    const size = this.restBytes;
    this.rest = [];
    this.restBytes = 0;
    if (pieces.length === 1 && pieces[0]) return { line: pieces[0], size };
    const line = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      line.set(piece, at);
      at += piece.length;
    }
    return { line, size };
  }

  private check({ line, size }: { line: Uint8Array; size: number }, newline: number): void {
    if (isBlank(line)) {
      this.blank.push(size + newline);
      if (this.blank.length > RULES.max_blank_lines) this.checkBlank();
      return;
    }
    this.checkBlank();
    const start = this.begin(size + newline);
    const report = checkLine(line, this.endpoint);
    const found = [...report.faults];
    if (this.lines > RULES.max_lines) {
      const message = `The file has more than ${RULES.max_lines} lines; split it into several batches.`;
      this.record(start, [{ code: "invalid_request", message, param: null }]);
      this.stopped = true;
      return;
    }
    this.inputs += report.inputs;
    if (report.customId !== null) found.push(...this.idFaults(report.customId));
    if (report.model !== null) found.push(...this.modelFaults(report.model));
    const most = this.endpoint.max_inputs;
    if (most !== null && this.inputs > most) {
      const message = `The file has more than ${most} inputs; split it into several batches.`;
      found.push({ code: "invalid_request", message, param: `body.${this.endpoint.prompt}` });
      this.inputs -= report.inputs; // without this line there may be room for the next
    }
    this.record(start, found);
  }

  private checkBlank(): void {
    const sizes = this.blank;
    this.blank = [];
    for (const size of sizes) {
      const start = this.begin(size);
      this.record(start, checkLine(new Uint8Array(), this.endpoint).faults);
    }
  }

  private begin(size: number): number {
    const start = this.offset;
    this.offset += size;
    this.lines++;
    return start;
  }

  private idFaults(customId: string): LineFault[] {
    const known = this.ids.has(customId);
    this.ids.add(customId);
    const message = `Duplicate custom_id: ${quote(customId)} is used by an earlier line.`;
    return known ? [{ code: "duplicate_custom_id", message, param: "custom_id" }] : [];
  }

  private modelFaults(model: string): LineFault[] {
    if (this.model === null) {
      this.model = model;
      this.modelLine = this.lines;
    }
    if (model === this.model) return [];
    const message =
      `The model ${quote(model)} does not match the model ${quote(this.model)} of line ${this.modelLine}.`;
    return [{ code: "model_mismatch", message, param: "body.model" }];
  }

  private record(start: number, found: LineFault[]): void {
    if (!found.length) return;
    this.wrong.push({ line: this.lines, start, end: this.offset, faults: found });
    for (const fault of found) {
      if (this.stopped || this.faults.length === RULES.max_faults) return;
      this.faults.push({ ...fault, line: this.lines });
    }
  }
}
