// Failed lines, grouped by what went wrong, and what to do about each group: pure functions.
import type { ResultLine } from "./jsonl";

export interface Group {
  name: string;
  remedy: string;
  count: number;
  samples: { customId: string; message: string }[];
}

const SAMPLES = 3;

const REMEDIES: Record<string, string> = {
  batch_expired: "The completion window ended first. Retry the failed lines; a smaller batch ends sooner.",
  batch_cancelled: "The batch was cancelled before this line was answered. Retry the failed lines if you need them.",
  request_timeout: "The model took too long. Retry, or ask for a shorter answer (max_tokens).",
  upstream_unreachable: "The provider could not be reached. Retry the failed lines.",
  internal_error: "Something went wrong on our side. Retry; if it stays, give the batch's id to the operator.",
};

export function group(failed: Iterable<ResultLine>): Group[] {
  const groups = new Map<string, Group>();
  for (const line of failed) {
    const { name, message, remedy } = describe(line);
    const found = groups.get(name) ?? { name, remedy, count: 0, samples: [] };
    found.count++;
    if (found.samples.length < SAMPLES) found.samples.push({ customId: line.custom_id, message });
    groups.set(name, found);
  }
  return [...groups.values()].sort((a, b) => b.count - a.count);
}

function describe(line: ResultLine): { name: string; message: string; remedy: string } {
  if (line.error) {
    const remedy = REMEDIES[line.error.code] ?? "Retry the failed lines.";
    return { name: line.error.code, message: line.error.message, remedy };
  }
  const status = line.response?.status_code ?? 0;
  const body = line.response?.body as { error?: { code?: unknown; type?: unknown; message?: unknown } } | null;
  const code = [body?.error?.code, body?.error?.type].find((each) => typeof each === "string" && each);
  const message = typeof body?.error?.message === "string" ? body.error.message : JSON.stringify(body) ?? "";
  return { name: code ? `${status} ${String(code)}` : String(status), message, remedy: remedyOf(status) };
}

function remedyOf(status: number): string {
  if (status === 429) return "The provider refused more at the time. Retry the failed lines.";
  if (status >= 500) return "The provider failed. Retry the failed lines.";
  if (status === 401 || status === 403) return "The provider refused the key. Ask the operator, then retry.";
  if (status === 404) return "The provider knows no such model or address. Check the model, then send the lines anew.";
  return "The provider refused the request itself. Change these lines as the message says, and send them in a new batch.";
}
