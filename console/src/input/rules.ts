// What a legal line is: the server's own tables, which `make openapi` writes.
import rules from "../rules.json";

export interface Endpoint {
  path: string;
  prompt: string;
  prompt_kinds: string[];
  refused: string[];
  max_inputs: number | null;
}

export const RULES = rules as Omit<typeof rules, "endpoints"> & { endpoints: Endpoint[] };

export function endpointOf(path: string): Endpoint {
  const found = RULES.endpoints.find((row) => row.path === path);
  if (!found) throw new Error(`unknown endpoint ${path}`);
  return found;
}
