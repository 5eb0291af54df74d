import { useEffect, useRef, useState } from "preact/hooks";
import { call, type ApiFile, type Batch } from "../api";
import { bytes, count, percent } from "../format";
import { checkFile, type Checked } from "../input/check";
import { remedyOf } from "../input/remedies";
import { endpointOf, RULES } from "../input/rules";
import { excerpt, guessEndpoint, without } from "../input/selection";
import { Bar, Problem } from "../parts/pieces";
import { go } from "../router";
import { Uploading } from "../upload";

const SHOWN = 50;

interface Making {
  onError: (error: Error | null) => void;
}

export function NewBatch({ onError }: Making) {
  const [file, setFile] = useState<File | null>(null);
  const [endpoint, setEndpoint] = useState(RULES.default_endpoint);
  const [checked, setChecked] = useState<Checked | null>(null);
  const [read, setRead] = useState(0);
  const [problem, setProblem] = useState<Error | null>(null);

  const choose = async (chosen: File) => {
    setEndpoint(await guessEndpoint(chosen));
    setFile(chosen);
  };
  useEffect(() => {
    if (!file) return;
    setChecked(null);
    setProblem(null);
    setRead(0);
    return checkFile(file, endpoint, setRead, setChecked, setProblem);
  }, [file, endpoint]);

  return (
    <>
      <div class="head"><h1>New batch</h1></div>
      <Choose file={file} onChosen={choose} />
      {file && (
        <section class="card" aria-labelledby="check">
          <h2 id="check">Check</h2>
          <label class="field">
            <span>Endpoint</span>
            <select value={endpoint} onChange={(event) => setEndpoint(event.currentTarget.value)}>
              {RULES.endpoints.map(({ path }) => <option key={path} value={path}>{path}</option>)}
            </select>
          </label>
          {problem && <Problem error={problem} />}
          {!checked && !problem && (
            <p role="status">Checking {file.name}, {percent(file.size ? read / file.size : 1)}…</p>
          )}
          {checked && <Report file={file} checked={checked} onMended={setFile} />}
        </section>
      )}
      {file && checked && !checked.faults.length && (
        <Create file={file} endpoint={endpoint} lines={checked.lines} onError={onError} />
      )}
    </>
  );
}

function Choose({ file, onChosen }: { file: File | null; onChosen: (file: File) => void }) {
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    const dropped = event.dataTransfer?.files[0];
    if (dropped) onChosen(dropped);
  };
  return (
    <div
      class={`card drop ${over ? "over" : ""}`} onDrop={drop} onDragLeave={() => setOver(false)}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
    >
      <p>
        {file ? <><strong>{file.name}</strong> <span class="quiet">{bytes(file.size)}</span></> : "Drop a JSONL file here, or choose one."}
      </p>
      <input
        ref={input} id="file" type="file" accept=".jsonl,application/jsonl" class="hidden" aria-label="JSONL file" tabIndex={-1}
        onChange={(event) => {
          const chosen = event.currentTarget.files?.[0];
          event.currentTarget.value = ""; // the same file may be chosen again, after it was changed
          if (chosen) onChosen(chosen);
        }}
      />
      <button class={file ? "" : "primary"} onClick={() => input.current?.click()}>
        {file ? "Choose another file" : "Choose a file"}
      </button>
      <p class="quiet">
        A request on each line, up to {count(RULES.max_lines)} lines and {bytes(RULES.max_file_bytes)}. It is checked here, and
        nothing is sent before you say so.
      </p>
    </div>
  );
}

interface Reporting {
  file: File;
  checked: Checked;
  onMended: (file: File) => void;
}

function Report({ file, checked, onMended }: Reporting) {
  const { faults, wrong, lines, model } = checked;
  const general = faults.filter((fault) => fault.line === null);
  if (!faults.length) {
    return (
      <p class="notice good" role="status">
        All {count(lines)} {lines === 1 ? "line is" : "lines are"} right. Model: <code>{model}</code>
      </p>
    );
  }
  const rest = lines - wrong.length;
  return (
    <>
      <div class="notice bad" role="alert">
        <p>
          {wrong.length > 0 && `${count(wrong.length)} of ${count(lines)} lines ${wrong.length === 1 ? "is" : "are"} wrong.`}
          {general.map((fault) => ` ${fault.message}`)}
        </p>
        {wrong.length > 0 && rest > 0 && (
          <button onClick={() => onMended(without(file, wrong))}>
            Remove {wrong.length === 1 ? "the wrong line" : `${count(wrong.length)} wrong lines`}
          </button>
        )}
      </div>
      <ol class="wrong">
        {wrong.slice(0, SHOWN).map((each) => <Wrong key={each.line} file={file} wrong={each} />)}
      </ol>
      {wrong.length > SHOWN && <p class="quiet">And {count(wrong.length - SHOWN)} more.</p>}
    </>
  );
}

function Wrong({ file, wrong }: { file: File; wrong: Checked["wrong"][number] }) {
  const [text, setText] = useState("");
  useEffect(() => void excerpt(file, wrong).then(setText), [file, wrong]);
  return (
    <li>
      <span class="tag">line {count(wrong.line)}</span>
      <ul>
        {wrong.faults.map((fault, number) => (
          <li key={number}>
            {fault.message} <code>{fault.code}</code> <span class="quiet">{remedyOf(fault.code)}</span>
          </li>
        ))}
      </ul>
      <pre tabIndex={0} aria-label={`Line ${wrong.line}`}>{text}</pre>
    </li>
  );
}

interface Creating {
  file: File;
  endpoint: string;
  lines: number;
  onError: (error: Error | null) => void;
}

function Create({ file, endpoint, lines, onError }: Creating) {
  const [state, setState] = useState<"ready" | "uploading" | "paused" | "creating">("ready");
  const [sent, setSent] = useState(0);
  const [problem, setProblem] = useState<Error | null>(null);
  const uploading = useRef<Uploading | null>(null);
  const uploaded = useRef<ApiFile | null>(null);
  const form = useRef<HTMLFormElement>(null);
  // One key for each press of the button, however often it is tried: never two batches.
  const key = useRef(crypto.randomUUID());
  useEffect(() => () => uploading.current?.stop(), []);

  const start = async () => {
    const chosen = optional(form.current!); // before the fields are disabled: a form does not tell those
    setProblem(null);
    setState("uploading");
    try {
      uploading.current ??= new Uploading(file, nameOf(file), setSent);
      uploaded.current ??= await uploading.current.run();
      setState("creating");
      const wanted = { input_file_id: uploaded.current.id, endpoint, completion_window: "24h", ...chosen };
      const batch = await call<Batch>("POST", "batches", wanted, undefined, { "Idempotency-Key": key.current });
      go(`#/batches/${batch.id}`);
    } catch (error) {
      if ((error as Error).name === "AbortError") return setState("paused");
      setState(uploaded.current ? "ready" : "paused");
      key.current = crypto.randomUUID();
      setProblem(error as Error);
      onError(error as Error);
    }
  };
  const busy = state === "uploading" || state === "creating";
  const share = file.size ? sent / file.size : 0;

  return (
    <form ref={form} class="card" aria-labelledby="create" onSubmit={(event) => (event.preventDefault(), void start())}>
      <h2 id="create">Create</h2>
      <label class="field">
        <span>Metadata <span class="quiet">(optional, one key=value on each line)</span></span>
        <textarea name="metadata" rows={2} placeholder="team=search" disabled={busy} />
      </label>
      <label class="field">
        <span>Webhook <span class="quiet">(optional, told when the batch ends)</span></span>
        <input name="callback_url" type="url" placeholder="https://example.com/hook" disabled={busy} />
      </label>
      {problem && <Problem error={problem} />}
      {state !== "ready" && (
        <p class="progress" role="status">
          <span
            class="track" role="progressbar" aria-label="Upload" aria-valuemin={0} aria-valuemax={100}
            aria-valuenow={Math.floor(100 * share)}
          >
            <Bar class="answered" share={share} />
          </span>
          <span class="share">{state === "creating" ? "creating…" : `${percent(share)}${state === "paused" ? ", paused" : ""}`}</span>
        </p>
      )}
      <div class="actions">
        {state === "uploading" && <button type="button" onClick={() => uploading.current?.stop()}>Pause</button>}
        {!busy && (
          <button class="primary">
            {state === "paused" ? "Go on" : `Send ${count(lines)} ${lines === 1 ? "line" : "lines"}`}
          </button>
        )}
      </div>
      <p class="quiet">
        Lines of {endpointOf(endpoint).path}, answered within 24 hours, each exactly once and in the order of the file.
      </p>
    </form>
  );
}

// The API takes files called .jsonl.
function nameOf(file: File): string {
  return file.name.endsWith(".jsonl") ? file.name : `${file.name}.jsonl`;
}

function optional(form: HTMLFormElement): { metadata?: Record<string, string>; callback_url?: string } {
  const fields = new FormData(form);
  const pairs = String(fields.get("metadata") ?? "").split("\n").filter((pair) => pair.trim()).map((pair) => {
    const [key = "", ...value] = pair.split("=");
    return [key.trim(), value.join("=").trim()] as const;
  });
  const url = String(fields.get("callback_url") ?? "").trim();
  return { ...(pairs.length && { metadata: Object.fromEntries(pairs) }), ...(url && { callback_url: url }) };
}
