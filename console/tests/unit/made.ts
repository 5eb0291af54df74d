// A batch as the API answers it.
import type { Batch } from "../../src/api";

export function made(fields: Partial<Batch> = {}): Batch {
  return {
    id: "batch_a", endpoint: "/v1/chat/completions", model: "m", errors: null, input_file_id: "file_a",
    status: "in_progress", output_file_id: null, error_file_id: null, created_at: 100, expires_at: 86_500,
    in_progress_at: null, finalizing_at: null, cancelling_at: null, failed_at: null, completed_at: null, expired_at: null,
    cancelled_at: null, request_counts: null, answer_seconds: null, usage: null, metadata: null, callback_url: null, retry_of: null, ...fields,
  };
}
