import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { cancelBatch, getBatch, listModels, retryBatch, type Batch } from "../api";
import { cost, done, endedAt, hasEnded, rates, timeline, type Sample } from "../batch";
import { brief, count, dollars, duration, statusWords } from "../format";
import { Chart } from "../parts/chart";
import { Deliveries } from "../parts/deliveries";
import { Failures } from "../parts/failures";
import { Files } from "../parts/files";
import { Confirm, Copy, Loading, Problem, ProgressBar, StatusBadge, Time } from "../parts/pieces";
import { useNow, usePoll } from "../poll";
import { go } from "../router";

interface Shown {
  id: string;
  onError: (error: Error | null) => void;
}

export function BatchView({ id, onError }: Shown) {
  const ask = useCallback((signal: AbortSignal) => getBatch(id, signal), [id]);
  const { value: batch, error, refresh } = usePoll(ask, (found) => !hasEnded(found));
  useEffect(() => onError(error), [error]);

  return (
    <>
      <p class="crumbs"><a href="#/">Batches</a></p>
      <div class="head">
        <h1 class="mono">{id}</h1>
        <Copy text={id} what="the batch's id" />
        {batch && <StatusBadge status={batch.status} />}
        {batch && <Actions batch={batch} onChanged={refresh} />}
      </div>
      {error && <Problem error={error} onRetry={refresh} />}
      {!batch && !error && <Loading what="the batch" />}
      {batch && <Details batch={batch} />}
    </>
  );
}

function Actions({ batch, onChanged }: { batch: Batch; onChanged: () => void }) {
  const [asked, setAsked] = useState<"cancel" | "retry" | null>(null);
  const [problem, setProblem] = useState<Error | null>(null);
  const ended = hasEnded(batch);
  const failed = batch.request_counts?.failed ?? 0;

  const act = async (step: () => Promise<void>) => {
    setProblem(null);
    try {
      await step();
    } catch (error) {
      setProblem(error as Error);
    }
  };
  const cancel = () => act(async () => {
    await cancelBatch(batch.id);
    onChanged();
  });
  const retry = () => act(async () => go(`#/batches/${(await retryBatch(batch.id)).id}`));

  return (
    <div class="actions">
      {!ended && batch.status !== "cancelling" && (
        <button class="danger" onClick={() => setAsked("cancel")}>Cancel</button>
      )}
      {ended && batch.error_file_id && failed > 0 && (
        <button onClick={() => setAsked("retry")}>Retry failed lines</button>
      )}
      {(batch.output_file_id ?? batch.error_file_id) && (
        <a class="button primary" href={`#/batches/${batch.id}/results`}>Results</a>
      )}
      {problem && <Problem error={problem} />}
      {asked === "cancel" && (
        <Confirm question="Cancel this batch?" action="Cancel the batch" danger onAction={cancel} onClose={() => setAsked(null)}>
          <p>Lines that are answered are kept. The others will not be sent; you can send them later with a retry.</p>
        </Confirm>
      )}
      {asked === "retry" && (
        <Confirm question={`Retry ${count(failed)} failed lines?`} action="Retry them" onAction={retry} onClose={() => setAsked(null)}>
          <p>They are sent again in a new batch, with their custom ids, and paid again.</p>
        </Confirm>
      )}
    </div>
  );
}

function Details({ batch }: { batch: Batch }) {
  return (
    <div class="grid">
      <Progress batch={batch} />
      {batch.errors && <FileErrors batch={batch} />}
      {batch.error_file_id && <Failures fileId={batch.error_file_id} total={batch.request_counts?.failed ?? 0} />}
      <Timeline batch={batch} />
      <About batch={batch} />
      <Files batch={batch} />
      <Deliveries batch={batch} />
    </div>
  );
}

function Progress({ batch }: { batch: Batch }) {
  const samples = useRef<Sample[]>([]);
  const last = samples.current.at(-1);
  const lines = done(batch);
  if (batch.status === "in_progress" && (!last || last.done !== lines)) {
    samples.current = [...samples.current.slice(-300), { at: Date.now() / 1000, done: lines }];
  }
  const points = rates(samples.current);
  const { request_counts: counts, answer_seconds: took } = batch;
  const end = endedAt(batch);
  const seconds = batch.in_progress_at === null ? null : (end ?? Date.now() / 1000) - batch.in_progress_at;
  const mean = seconds && lines ? (60 * lines) / seconds : null;
  return (
    <section class="card wide" aria-labelledby="progress">
      <h2 id="progress">Progress</h2>
      <ProgressBar batch={batch} />
      <dl class="facts">
        <Fact name="Lines" value={counts ? count(counts.total) : "being counted"} />
        <Fact name="Answered" value={counts ? count(counts.completed) : "–"} />
        <Fact name="Failed" value={counts ? count(counts.failed) : "–"} />
        <Fact name="Lines a minute" value={mean === null ? "–" : count(Math.round(mean))} />
        {took && <Fact name="Half the answers take" value={brief(took.p50)} />}
        {took && <Fact name="Nine of ten take" value={brief(took.p90)} />}
      </dl>
      {points.length > 1 && !hasEnded(batch) && (
        <figure>
          <figcaption>Lines a minute, since you opened this page</figcaption>
          <Chart label={`Lines a minute: ${Math.round(points.at(-1)!.perMinute)} at the moment`} points={points} />
        </figure>
      )}
    </section>
  );
}

function Timeline({ batch }: { batch: Batch }) {
  const now = useNow();
  const steps = timeline(batch, now);
  return (
    <section class="card" aria-labelledby="timeline">
      <h2 id="timeline">Timeline</h2>
      <ol class="timeline">
        {steps.map(({ status, at, seconds }) => (
          <li key={status} class={status}>
            <span class="what">{statusWords(status)}</span>
            <span class="when"><Time at={at} /></span>
            {seconds !== null && <span class="quiet">{duration(seconds)}</span>}
          </li>
        ))}
      </ol>
      {!hasEnded(batch) && <p class="quiet">Ends by <Time at={batch.expires_at} /> at the latest.</p>}
    </section>
  );
}

function FileErrors({ batch }: { batch: Batch }) {
  const errors = batch.errors?.data ?? [];
  return (
    <section class="card wide" aria-labelledby="errors">
      <h2 id="errors">What was wrong</h2>
      <ul class="faults">
        {errors.map((fault, number) => (
          <li key={number}>
            {fault.line !== null && <span class="tag">line {fault.line}</span>} {fault.message} <code>{fault.code}</code>
          </li>
        ))}
      </ul>
      {batch.status === "failed" && (
        <p>Nothing was sent or paid. <a href="#/new">Check and mend the file</a> and send it again.</p>
      )}
    </section>
  );
}

function About({ batch }: { batch: Batch }) {
  const [price, setPrice] = useState<number | null>(null);
  const usage = batch.usage;
  useEffect(() => {
    listModels().then(({ data }) => setPrice(cost(batch, data)), () => setPrice(null));
  }, [batch.model, usage?.total_tokens]);
  return (
    <section class="card" aria-labelledby="about">
      <h2 id="about">Usage</h2>
      <dl class="rows">
        <Fact name="Model" value={batch.model ?? "–"} />
        <Fact name="Endpoint" value={batch.endpoint} />
        <Fact name="Input tokens" value={usage ? count(usage.input_tokens) : "–"} />
        <Fact name="of them cached" value={usage ? count(usage.input_tokens_details.cached_tokens) : "–"} />
        <Fact name="Output tokens" value={usage ? count(usage.output_tokens) : "–"} />
        <Fact name="of them reasoning" value={usage ? count(usage.output_tokens_details.reasoning_tokens) : "–"} />
        {price !== null && <Fact name="Cost at list prices" value={dollars(price)} />}
        {batch.retry_of && (
          <div>
            <dt>Retry of</dt>
            <dd><a class="mono" href={`#/batches/${batch.retry_of}`}>{batch.retry_of}</a></dd>
          </div>
        )}
        {Object.entries(batch.metadata ?? {}).map(([key, value]) => <Fact key={key} name={key} value={value} />)}
      </dl>
    </section>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
