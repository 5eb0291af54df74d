import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { listModels, type Batch, type Model } from "../api";
import { cost, matches, STATUSES } from "../batch";
import { age, count, dollars, iso, short, statusWords } from "../format";
import { useBatches } from "../listing";
import { Loading, Problem, ProgressBar, StatusBadge } from "../parts/pieces";
import { useNow } from "../poll";
import { batchesLink, go, replace } from "../router";

interface Listing {
  status: string;
  words: string;
  onError: (error: Error | null) => void;
}

export function Batches({ status, words, onError }: Listing) {
  const { batches, error, loading, hasMore, more, refresh } = useBatches(status);
  const [models, setModels] = useState<Model[]>([]);
  const now = useNow(10_000);
  const shown = useMemo(() => (words ? batches.filter((batch) => matches(batch, words)) : batches), [batches, words]);
  useEffect(() => onError(error), [error]);
  useEffect(() => void listModels().then(({ data }) => setModels(data), onError), []);

  return (
    <>
      <div class="head">
        <h1>Batches</h1>
        <a class="button primary" href="#/new">New batch</a>
      </div>
      <Filters status={status} words={words} />
      {error && <Problem error={error} onRetry={refresh} />}
      {loading && !error && <Loading what="batches" />}
      {shown.length > 0 && (
        <table class="list">
          <caption class="hidden">Batches, newest first</caption>
          <thead>
            <tr>
              <th scope="col">Batch</th>
              <th scope="col">Status</th>
              <th scope="col">Progress</th>
              <th scope="col" class="number">Lines</th>
              <th scope="col" class="number">Failed</th>
              <th scope="col" class="number">Tokens</th>
              <th scope="col" class="number">Cost</th>
              <th scope="col" class="number">Age</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((batch) => (
              <Row key={batch.id} batch={batch} models={models} age={age(now - batch.created_at)} />
            ))}
          </tbody>
        </table>
      )}
      {!shown.length && !loading && !error && !hasMore && <Nothing filtered={Boolean(status || words)} />}
      {hasMore && <More onSeen={more} filtered={Boolean(words)} />}
    </>
  );
}

function Filters({ status, words }: { status: string; words: string }) {
  return (
    <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
      <label>
        <span>Status</span>
        <select value={status} onChange={(event) => go(batchesLink(event.currentTarget.value, words))}>
          <option value="">all</option>
          {STATUSES.map((each) => <option key={each} value={each}>{statusWords(each)}</option>)}
        </select>
      </label>
      <label class="grow">
        <span>Id, model or metadata</span>
        <input
          type="search" value={words} placeholder="team=search"
          onInput={(event) => replace(batchesLink(status, event.currentTarget.value))}
        />
      </label>
    </form>
  );
}

function Row({ batch, models, age }: { batch: Batch; models: Model[]; age: string }) {
  const price = cost(batch, models);
  const counts = batch.request_counts;
  return (
    <tr>
      <th scope="row">
        <a class="mono" href={`#/batches/${batch.id}`}>{batch.id}</a>
        <span class="about">
          {batch.model ?? "no model"}
          {Object.entries(batch.metadata ?? {}).map(([key, value]) => <span class="tag" key={key}>{key}={value}</span>)}
        </span>
      </th>
      <td data-label="Status"><StatusBadge status={batch.status} /></td>
      <td data-label="Progress"><ProgressBar batch={batch} /></td>
      <td data-label="Lines" class="number">{counts ? count(counts.total) : "–"}</td>
      <td data-label="Failed" class={`number ${counts?.failed ? "has-failed" : ""}`}>
        {counts ? count(counts.failed) : "–"}
      </td>
      <td data-label="Tokens" class="number">{batch.usage?.total_tokens ? short(batch.usage.total_tokens) : "–"}</td>
      <td data-label="Cost" class="number">{price === null ? "–" : dollars(price)}</td>
      <td data-label="Age" class="number"><time dateTime={iso(batch.created_at)}>{age}</time></td>
    </tr>
  );
}

function Nothing({ filtered }: { filtered: boolean }) {
  if (filtered) {
    return (
      <div class="card empty">
        <h2>No batch is like this</h2>
        <p>Choose another status or other words. <a href="#/">Show all batches</a></p>
      </div>
    );
  }
  return (
    <div class="card empty">
      <h2>No batches yet</h2>
      <p>A batch is a file with a request on each line. Every line gets its answer, in order.</p>
      <p><a class="button primary" href="#/new">Make the first one</a></p>
    </div>
  );
}

// Asks for more when it comes into view, and as long as it is.
function More({ onSeen, filtered }: { onSeen: () => Promise<void>; filtered: boolean }) {
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    let busy = false;
    const watching = new IntersectionObserver(
      async ([entry]) => {
        if (!entry?.isIntersecting || busy) return;
        busy = true;
        await onSeen();
      },
      { rootMargin: "400px" },
    );
    watching.observe(button.current!);
    return () => watching.disconnect();
  }, [onSeen]);
  return (
    <p class="more">
      <button ref={button} onClick={() => void onSeen()}>{filtered ? "Look further back" : "Older batches"}</button>
    </p>
  );
}
