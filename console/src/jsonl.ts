// The lines of a stored file, by ranges: no file is ever loaded as a whole.
import { request } from "./api";

const BLOCK = 512 * 1024;

export type Read = (start: number, end: number, signal?: AbortSignal) => Promise<Uint8Array>;

// Reads a range of a file through the API, which leads to S3 where the file is large.
export function reader(fileId: string): Read {
  return async (start, end, signal) => {
    const init: RequestInit = { headers: { Range: `bytes=${start}-${end - 1}` } };
    if (signal) init.signal = signal;
    const answer = await request(`files/${fileId}/content`, init);
    if (answer.status === 416) return new Uint8Array();
    const content = new Uint8Array(await answer.arrayBuffer());
    return answer.status === 206 ? content : content.subarray(start, end);
  };
}

export async function* lines(read: Read, signal?: AbortSignal, block = BLOCK): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for (let start = 0; ; start += block) {
    const content = await read(start, start + block, signal);
    const pieces = (rest + decoder.decode(content, { stream: true })).split("\n");
    rest = pieces.pop() ?? "";
    for (const piece of pieces) if (piece.trim()) yield piece;
    if (content.length < block) break;
  }
  rest += decoder.decode();
  if (rest.trim()) yield rest;
}

export interface Result {
  number: number; // of the line in the input file, from 1
  customId: string;
  input: string;
  result: ResultLine | null; // null while there is none
  failed: boolean;
}

export interface ResultLine {
  custom_id: string;
  response: { status_code: number; request_id: string | null; body: unknown } | null;
  error: { code: string; message: string } | null;
}

type Lines = AsyncIterable<string>;

// Each input line beside its answer or its error. All three files are in the order of the input.
export async function* joined(input: Lines, output: Lines | null, errors: Lines | null): AsyncGenerator<Result> {
  const sources = [
    { lines: output?.[Symbol.asyncIterator](), next: null as ResultLine | null, failed: false },
    { lines: errors?.[Symbol.asyncIterator](), next: null as ResultLine | null, failed: true },
  ];
  const advance = async (source: (typeof sources)[number]) => {
    const found = await source.lines?.next();
    source.next = found && !found.done ? (JSON.parse(found.value) as ResultLine) : null;
  };
  for (const source of sources) await advance(source);
  let number = 0;
  for await (const line of input) {
    number++;
    const customId = (JSON.parse(line) as { custom_id: string }).custom_id;
    const source = sources.find((each) => each.next?.custom_id === customId);
    yield { number, customId, input: line, result: source?.next ?? null, failed: source?.failed ?? false };
    if (source) await advance(source);
  }
}

// The text of an answer, whichever endpoint it is from; null if there is none to show.
export function answerText(body: unknown): string | null {
  const found = body as {
    choices?: { message?: { content?: unknown }; text?: unknown }[];
    output?: { content?: { text?: unknown }[] }[];
  } | null;
  const choice = found?.choices?.[0];
  const texts = [choice?.message?.content, choice?.text, found?.output?.flatMap((item) => item.content ?? [])[0]?.text];
  return texts.find((text): text is string => typeof text === "string" && text !== "") ?? null;
}
