// The public API, with the caller's key: the only thing that the console talks to.
import type { Fault } from "./input/line";
import { apiKey } from "./session";

export type Status =
  | "validating" | "in_progress" | "finalizing" | "completed" | "failed" | "expired" | "cancelling" | "cancelled";

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  total_tokens: number;
  input_tokens_details: { cached_tokens: number };
  output_tokens_details: { reasoning_tokens: number };
}

export interface Batch {
  id: string;
  endpoint: string;
  model: string | null;
  errors: { data: Fault[] } | null;
  input_file_id: string;
  status: Status;
  output_file_id: string | null;
  error_file_id: string | null;
  created_at: number;
  expires_at: number;
  in_progress_at: number | null;
  finalizing_at: number | null;
  cancelling_at: number | null;
  failed_at: number | null;
  completed_at: number | null;
  expired_at: number | null;
  cancelled_at: number | null;
  request_counts: { total: number; completed: number; failed: number } | null;
  answer_seconds: { p50: number; p90: number } | null;
  usage: Usage | null;
  metadata: Record<string, string> | null;
  callback_url: string | null;
  retry_of: string | null;
}

export interface ApiFile {
  id: string;
  bytes: number;
  filename: string;
  created_at: number;
  expires_at: number | null;
}

export interface Model {
  id: string;
  endpoints: string[];
  prices: { mode: "realtime" | "batch"; input_per_million: number | null; output_per_million: number | null } | null;
}

export interface Delivery {
  id: string;
  event_type: string;
  url: string;
  status: "pending" | "succeeded" | "failed";
  created_at: number;
  next_attempt_at: number | null;
  attempts: { attempted_at: number; status_code: number | null; error: string | null }[];
}

export interface Page<T> {
  data: T[];
  last_id: string | null;
  has_more: boolean;
}

export interface Upload {
  id: string;
  file: ApiFile | null;
}

export interface PresignedPart {
  id: string;
  upload_url: string;
  upload_headers: Record<string, string>;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code: string | null = null,
    readonly details: Fault[] = [],
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

// No answer came at all.
export class OfflineError extends Error {}

// Beside the console, whatever the address of the API is.
export function urlOf(path: string): string {
  return new URL(path, location.href).href;
}

export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("Authorization", `Bearer ${apiKey() ?? ""}`);
  let answer: Response;
  try {
    answer = await fetch(urlOf(path), { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new OfflineError("The API does not answer. Check the connection; it is tried again by itself.");
  }
  if (!answer.ok && answer.status !== 416) throw await errorOf(answer);
  return answer;
}

export async function call<T>(
  method: string, path: string, body?: unknown, signal?: AbortSignal, headers: Record<string, string> = {},
): Promise<T> {
  const sent: RequestInit = { method, headers };
  if (signal) sent.signal = signal;
  if (body !== undefined) {
    sent.body = JSON.stringify(body);
    sent.headers = { ...headers, "Content-Type": "application/json" };
  }
  const answer = await request(path, sent);
  return (await answer.json()) as T;
}

async function errorOf(answer: Response): Promise<ApiError> {
  const requestId = answer.headers.get("x-request-id");
  try {
    const { error } = (await answer.json()) as {
      error: { message: string; code: string | null; details?: Fault[] };
    };
    return new ApiError(answer.status, error.message, error.code, error.details ?? [], requestId);
  } catch {
    return new ApiError(answer.status, `The API answered ${answer.status}.`, null, [], requestId);
  }
}

export const listBatches = (status: string, after: string | null, limit: number, signal?: AbortSignal) => {
  const query = new URLSearchParams({ limit: String(limit) });
  if (status) query.set("status", status);
  if (after) query.set("after", after);
  return call<Page<Batch>>("GET", `batches?${query}`, undefined, signal);
};
export const getBatch = (id: string, signal?: AbortSignal) => call<Batch>("GET", `batches/${id}`, undefined, signal);
export const cancelBatch = (id: string) => call<Batch>("POST", `batches/${id}/cancel`, {});
export const retryBatch = (id: string) => call<Batch>("POST", `batches/${id}/retry`, {});
export const getFile = (id: string, signal?: AbortSignal) => call<ApiFile>("GET", `files/${id}`, undefined, signal);
export const listModels = (signal?: AbortSignal) => call<{ data: Model[] }>("GET", "models", undefined, signal);
export const listDeliveries = (id: string, signal?: AbortSignal) =>
  call<Page<Delivery>>("GET", `batches/${id}/webhook_deliveries`, undefined, signal);
export const redeliver = (batch: string, delivery: string) =>
  call<Delivery>("POST", `batches/${batch}/webhook_deliveries/${delivery}/redeliver`, {});
