// Checks a file in a worker.
import type { WrongLine } from "./file";
import type { Fault } from "./line";
import type { Asked, Told } from "./worker";

export interface Checked {
  faults: Fault[];
  wrong: WrongLine[];
  lines: number;
  model: string | null;
}

// Returns a function that gives the check up.
export function checkFile(
  file: Blob, endpoint: string,
  onRead: (bytes: number) => void, onChecked: (checked: Checked) => void, onProblem: (problem: Error) => void,
): () => void {
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }: MessageEvent<Told>) => {
    if (data.kind === "progress") return onRead(data.bytes);
    if (data.kind === "checked") onChecked(data);
    else onProblem(new Error(`The file could not be read: ${data.message}`));
    worker.terminate();
  };
  worker.onerror = () => onProblem(new Error("The check could not start. Load the page again."));
  worker.postMessage({ file, endpoint } satisfies Asked);
  return () => worker.terminate();
}
