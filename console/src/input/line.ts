// The check of one line, as the server's input/line_check.py makes it: the same codes, parameters and messages. What the
// server finds in a thousand lines is generated, and tests/unit/file.test.ts compares.
import { RULES, type Endpoint } from "./rules";

export interface Fault {
  code: string;
  message: string;
  param: string | null;
  line: number | null;
}

export type LineFault = Omit<Fault, "line">;

export interface LineReport {
  faults: LineFault[];
  customId: string | null;
  model: string | null;
  inputs: number;
}

type Fields = Record<string, unknown>;

const REFUSALS: Record<string, [code: string, asked: string]> = {
  stream: ["streaming_unsupported", "Streaming"],
  background: ["invalid_request", "A background response"],
};
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function checkLine(line: Uint8Array, endpoint: Endpoint): LineReport {
  if (line.length > RULES.max_line_bytes) {
    return unreadable({
      code: "line_too_long",
      message: `The line is too long; the limit is ${RULES.max_line_bytes} bytes.`,
      param: null,
    });
  }
  const fields = read(line);
  if ("fault" in fields) return unreadable(fields.fault);
  return diagnose(fields.value, endpoint);
}

export function isBlank(line: Uint8Array): boolean {
  return line.every((byte) => byte === 32 || (byte >= 9 && byte <= 13));
}

// A caller's text for a message, as Python's ascii() writes it: in quotes, and cut at 80 characters.
export function quote(text: string): string {
  const characters = [...text];
  const shown = characters.length <= 80 ? text : characters.slice(0, 77).join("") + "...";
  const mark = shown.includes("'") && !shown.includes('"') ? '"' : "'";
  let quoted = "";
  for (const character of shown) quoted += escaped(character, mark);
  return mark + quoted + mark;
}

function escaped(character: string, mark: string): string {
  const named: Record<string, string> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", [mark]: `\\${mark}` };
  if (named[character]) return named[character];
  const code = character.codePointAt(0) ?? 0;
  if (code >= 32 && code < 127) return character;
  if (code < 256) return `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 65536 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}

function diagnose(fields: Fields, endpoint: Endpoint): LineReport {
  const faults: LineFault[] = [];
  const add = (fault: LineFault | null) => fault && faults.push(fault);
  const customId = text(fields, "custom_id", "", "missing_required_parameter");
  if (typeof customId !== "string") faults.push(customId);
  add(methodFault(fields.method));
  add(urlFault(fields.url, endpoint));
  let model: string | LineFault | null = null;
  let inputs = 1;
  const body = fields.body;
  if (body === undefined || body === null) add(missing("body"));
  else if (!isObject(body)) add(wrongType("body", ["an object"], body));
  else {
    model = text(body, "model", "body.", "invalid_request");
    if (typeof model !== "string") faults.push(model);
    add(promptFault(body, endpoint));
    for (const name of endpoint.refused) add(refusedFault(body, name));
    if (endpoint.max_inputs !== null) inputs = inputsOf(body[endpoint.prompt]);
  }
  return {
    faults,
    customId: typeof customId === "string" ? customId : null,
    model: typeof model === "string" ? model : null,
    inputs: faults.length ? 0 : inputs,
  };
}

function read(line: Uint8Array): { value: Fields } | { fault: LineFault } {
  const bad = (message: string) => ({ fault: { code: "invalid_json_line", message, param: null } });
  if (line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf) {
    return bad("The line starts with a byte order mark (BOM); save the file as UTF-8 without it.");
  }
  if (isBlank(line)) return bad("The line is blank; remove it.");
  if (depth(line) > RULES.max_depth) return bad(`The line is nested deeper than ${RULES.max_depth} levels.`);
  let json: string;
  try {
    json = decoder.decode(line);
  } catch {
    return bad("The line is not valid UTF-8; save the file as UTF-8.");
  }
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    return bad(`The line is not valid JSON: ${(error as Error).message}.`);
  }
  return isObject(value) ? { value } : bad(`The line is not a JSON object, but ${kind(value)}.`);
}

// How deeply the brackets are nested that stand outside of strings.
function depth(line: Uint8Array): number {
  let level = 0;
  let most = 0;
  let inString = false;
  for (let at = 0; at < line.length; at++) {
    const byte = line[at];
    if (inString) {
      if (byte === 0x5c) at++;
      else if (byte === 0x22) inString = false;
    } else if (byte === 0x22) inString = true;
    else if (byte === 0x5b || byte === 0x7b) most = Math.max(most, ++level);
    else if (byte === 0x5d || byte === 0x7d) level--;
  }
  return most;
}

function text(fields: Fields, name: string, parent: string, code: string): string | LineFault {
  const value = fields[name];
  const param = parent + name;
  if (value === undefined || value === null) return missing(param, code);
  if (typeof value !== "string") return wrongType(param, ["a string"], value);
  return value || empty(param);
}

function methodFault(method: unknown): LineFault | null {
  if (method === undefined || method === null) return missing("method");
  if (method === "POST") return null;
  return {
    code: "invalid_method",
    message: `Invalid value for method: ${shown(method)}; use 'POST'.`,
    param: "method",
  };
}

function urlFault(url: unknown, endpoint: Endpoint): LineFault | null {
  if (url === undefined || url === null) return missing("url");
  if (url === endpoint.path) return null;
  const message = `The url ${shown(url)} does not match the endpoint ${endpoint.path}.`;
  return { code: "invalid_url", message, param: "url" };
}

function promptFault(body: Fields, endpoint: Endpoint): LineFault | null {
  const prompt = body[endpoint.prompt];
  const param = `body.${endpoint.prompt}`;
  if (prompt === undefined || prompt === null) return missing(param, "invalid_request");
  if (!endpoint.prompt_kinds.includes(kind(prompt))) return wrongType(param, endpoint.prompt_kinds, prompt);
  return prompt === "" || (Array.isArray(prompt) && !prompt.length) ? empty(param) : null;
}

function refusedFault(body: Fields, name: string): LineFault | null {
  const value = body[name];
  if (value === undefined || value === null || value === false) return null;
  const [code, asked] = REFUSALS[name] ?? ["invalid_request", name];
  return { code, message: `${asked} is not supported in a batch; remove body.${name}.`, param: `body.${name}` };
}

function inputsOf(prompt: unknown): number {
  if (!Array.isArray(prompt)) return 1;
  return prompt.filter((item) => typeof item === "string" || (typeof item === "object" && item !== null)).length || 1;
}

function unreadable(fault: LineFault): LineReport {
  return { faults: [fault], customId: null, model: null, inputs: 0 };
}

function missing(param: string, code = "missing_required_parameter"): LineFault {
  return { code, message: `Missing required parameter: ${param}.`, param };
}

function wrongType(param: string, expected: string[], value: unknown): LineFault {
  const message = `Invalid type for ${param}: expected ${expected.join(" or ")}, but got ${kind(value)}.`;
  return { code: "invalid_request", message, param };
}

function empty(param: string): LineFault {
  return { code: "invalid_request", message: `Invalid value for ${param}: it must not be empty.`, param };
}

function kind(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return { string: "a string", object: "an object", boolean: "a boolean" }[typeof value as string] ?? "a number";
}

function shown(value: unknown): string {
  return typeof value === "string" ? quote(value) : kind(value);
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
