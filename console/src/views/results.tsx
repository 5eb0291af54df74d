import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { getBatch, type Batch } from "../api";
import { count } from "../format";
import { answerText, joined, lines, reader, type Result } from "../jsonl";
import { Loading, Problem } from "../parts/pieces";

const PAGE = 50;
type Kind = "all" | "answered" | "failed";

interface Shown {
  id: string;
  onError: (error: Error | null) => void;
}

export function Results({ id, onError }: Shown) {
  const [batch, setBatch] = useState<Batch | null>(null);
  const [kind, setKind] = useState<Kind>("all");
  const [words, setWords] = useState("");
  const { found, state, problem, more, looked } = useResults(batch, kind, words);
  useEffect(() => {
    getBatch(id).then(setBatch, onError);
  }, [id]);
  useEffect(() => onError(problem), [problem]);

  return (
    <>
      <p class="crumbs"><a href="#/">Batches</a> / <a class="mono" href={`#/batches/${id}`}>{id}</a></p>
      <div class="head"><h1>Results</h1></div>
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <label>
          <span>Show</span>
          <select value={kind} onChange={(event) => setKind(event.currentTarget.value as Kind)}>
            <option value="all">all lines</option>
            <option value="answered">answered</option>
            <option value="failed">failed</option>
          </select>
        </label>
        <label class="grow">
          <span>Search in requests and answers</span>
          <input type="search" onInput={(event) => setWords(event.currentTarget.value)} />
        </label>
      </form>
      {problem && <Problem error={problem} onRetry={more} />}
      <ol class="results">
        {found.map((result) => <Line key={result.number} result={result} />)}
      </ol>
      {state === "ended" && !found.length && <p class="card empty">No line is like this.</p>}
      <p class="quiet" role="status">
        {state === "reading" ? `${count(looked)} lines read…` : `${count(found.length)} shown, ${count(looked)} lines read.`}
      </p>
      {state === "paused" && <p class="more"><button onClick={more}>More lines</button></p>}
      {!batch && !problem && <Loading what="the batch" />}
    </>
  );
}

function Line({ result }: { result: Result }) {
  const { result: line, failed } = result;
  const text = answerText(line?.response?.body) ?? line?.error?.message ?? null;
  const name = !line ? "none yet" : line.error ? line.error.code : String(line.response?.status_code ?? "");
  return (
    <li class="card">
      <details>
        <summary>
          <span class="quiet">{count(result.number)}</span>
          <code>{result.customId}</code>
          <span class={`status ${!line ? "" : failed ? "failed" : "completed"}`}>{name}</span>
          <span class="excerpt">{text ?? ""}</span>
        </summary>
        <div class="beside">
          <div>
            <h2>Request</h2>
            <pre tabIndex={0}>{pretty(JSON.parse(result.input).body)}</pre>
          </div>
          <div>
            <h2>{failed ? "Error" : "Answer"}</h2>
            {!failed && text && <p class="text">{text}</p>}
            <pre tabIndex={0}>{line ? pretty(line.error ?? line.response?.body) : "There is none."}</pre>
          </div>
        </div>
      </details>
    </li>
  );
}

const pretty = (value: unknown) => JSON.stringify(value, null, 2);

// Reads the three files together, a page at a time, from the beginning for other words.
function useResults(batch: Batch | null, kind: Kind, words: string) {
  const [found, setFound] = useState<Result[]>([]);
  const [looked, setLooked] = useState(0);
  const [state, setState] = useState<"reading" | "paused" | "ended">("reading");
  const [problem, setProblem] = useState<Error | null>(null);
  const source = useRef<AsyncGenerator<Result> | null>(null);
  const current = useRef<AbortController | null>(null);

  const read = useCallback(async (abort: AbortController) => {
    setState("reading");
    try {
      let page: Result[] = [];
      while (page.length < PAGE) {
        const { value, done } = await source.current!.next();
        if (abort.signal.aborted) return;
        if (done) {
          setFound((before) => [...before, ...page]);
          return setState("ended");
        }
        if (value.number % 500 === 0) setLooked(value.number);
        if (fits(value, kind, words)) page = [...page, value];
        setLookedAtEnd(value.number);
      }
      setFound((before) => [...before, ...page]);
      setProblem(null);
      setState("paused");
    } catch (error) {
      if (abort.signal.aborted) return;
      source.current = null;
      setProblem(error as Error);
      setState("paused");
    } finally {
      if (!abort.signal.aborted) setLooked(last.current);
    }
  }, [kind, words]);
  const last = useRef(0);
  const setLookedAtEnd = (number: number) => (last.current = number);

  const begin = useCallback(() => {
    current.current?.abort();
    if (!batch) return;
    const abort = new AbortController();
    current.current = abort;
    last.current = 0;
    setFound([]);
    setLooked(0);
    source.current = open(batch, abort.signal);
    void read(abort);
  }, [batch, read]);
  useEffect(() => {
    // Not for each letter of a word.
    const timer = window.setTimeout(begin, words ? 250 : 0);
    return () => {
      window.clearTimeout(timer);
      current.current?.abort();
    };
  }, [begin]);

  const more = useCallback(() => (source.current && current.current ? void read(current.current) : begin()), [read, begin]);
  return { found, state, problem, more, looked };
}

function open(batch: Batch, signal: AbortSignal): AsyncGenerator<Result> {
  const of = (fileId: string | null) => (fileId ? lines(reader(fileId), signal) : null);
  return joined(lines(reader(batch.input_file_id), signal), of(batch.output_file_id), of(batch.error_file_id));
}

function fits(result: Result, kind: Kind, words: string): boolean {
  if (kind === "answered" && (!result.result || result.failed)) return false;
  if (kind === "failed" && !result.failed) return false;
  if (!words) return true;
  const text = `${result.input} ${JSON.stringify(result.result)}`.toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
