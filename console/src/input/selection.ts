// Parts of a file, none of which is loaded as a whole.
import type { WrongLine } from "./file";
import { RULES } from "./rules";

const EXCERPT_BYTES = 400;
const FIRST_LINE_BYTES = 64 * 1024;

// The file without its wrong lines.
export function without(file: File, wrong: readonly WrongLine[]): File {
  const kept: Blob[] = [];
  let at = 0;
  for (const { start, end } of wrong) {
    if (start > at) kept.push(file.slice(at, start));
    at = end;
  }
  kept.push(file.slice(at));
  return new File(kept, file.name, { type: file.type });
}

// The beginning of a line.
export async function excerpt(file: Blob, { start, end }: Pick<WrongLine, "start" | "end">): Promise<string> {
  const text = await file.slice(start, Math.min(end, start + EXCERPT_BYTES)).text();
  return text.replace(/\n$/, "") + (end - start > EXCERPT_BYTES ? "…" : "");
}

// The endpoint that the file's first line is for, or the default.
export async function guessEndpoint(file: Blob): Promise<string> {
  const [first = ""] = (await file.slice(0, FIRST_LINE_BYTES).text()).split("\n", 1);
  const url = /"url"\s*:\s*"([^"]+)"/.exec(first)?.[1];
  return RULES.endpoints.some(({ path }) => path === url) ? url! : RULES.default_endpoint;
}
