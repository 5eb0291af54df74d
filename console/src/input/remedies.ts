// What to do about each fault of a file.
const REMEDIES: Record<string, string> = {
  missing_required_parameter: "Each line needs custom_id, method, url and body: add what is missing.",
  invalid_request: "Change the field as the message says.",
  invalid_method: 'Write "method": "POST".',
  invalid_url: "Write the endpoint of the batch as the url, or choose the endpoint of this line above.",
  model_mismatch: "A batch has one model, that of its first line: put lines for another model into a file of their own.",
  model_not_found: "Choose a model that the API lists.",
  streaming_unsupported: "Remove the field stream: answers come when the batch has ended.",
  empty_file: "Choose a file with a request on each line.",
  invalid_json_line: "Write one whole JSON object on one line, in UTF-8, and nothing else on it.",
  duplicate_custom_id: "Give each line a custom_id of its own: answers are found by it.",
  line_too_long: "Shorten the line to 16 MiB: large images or files can be sent as URLs.",
};

export function remedyOf(code: string): string {
  return REMEDIES[code] ?? "Change the line as the message says.";
}

export const knows = (code: string) => code in REMEDIES;
