// The small pieces that several views show.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, OfflineError, type Batch, type Status } from "../api";
import { done, progress } from "../batch";
import { count, iso, moment, percent, statusWords } from "../format";

export function StatusBadge({ status }: { status: Status }) {
  return <span class={`status ${status}`}>{statusWords(status)}</span>;
}

export function ProgressBar({ batch }: { batch: Batch }) {
  const counts = batch.request_counts;
  const share = progress(batch);
  const words = counts ? `${count(done(batch))} of ${count(counts.total)} lines` : "not counted yet";
  return (
    <span class="progress">
      <span
        class="track" role="progressbar" aria-label="Progress" aria-valuemin={0} aria-valuemax={100}
        aria-valuenow={Math.floor(share * 100)} aria-valuetext={words}
      >
        <Bar class="answered" share={counts?.total ? counts.completed / counts.total : share} />
        <Bar class="failed" share={counts?.total ? counts.failed / counts.total : 0} />
      </span>
      <span class="share">{percent(share)}</span>
    </span>
  );
}

// The widths are set by script, because the page's policy forbids style attributes.
export function Bar({ share, ...rest }: { share: number; class: string }) {
  const bar = useRef<HTMLSpanElement>(null);
  useEffect(() => bar.current?.style.setProperty("width", `${100 * share}%`), [share]);
  return <span ref={bar} {...rest} />;
}

export function Time({ at }: { at: number }) {
  return <time dateTime={iso(at)}>{moment(at)}</time>;
}

export function Problem({ error, onRetry }: { error: Error; onRetry?: () => void }) {
  const isOffline = error instanceof OfflineError;
  const requestId = error instanceof ApiError ? error.requestId : null;
  return (
    <div class={`notice ${isOffline ? "offline" : "bad"}`} role="alert">
      <p>{error.message}</p>
      {requestId && <p class="quiet">For the operator: <code>{requestId}</code></p>}
      {onRetry && <button onClick={onRetry}>Try now</button>}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return <p class="loading" role="status">Loading {what}…</p>;
}

export function Copy({ text, what }: { text: string; what: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    window.setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button class="plain small" onClick={copy} aria-label={`Copy ${what}`}>{copied ? "Copied" : "Copy"}</button>
  );
}

interface Confirming {
  question: string;
  children: ComponentChildren;
  action: string;
  danger?: boolean;
  onAction: () => void;
  onClose: () => void;
}

// A question with two answers. The browser keeps the focus inside, and Escape is "no".
export function Confirm({ question, children, action, danger, onAction, onClose }: Confirming) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const act = () => {
    onAction();
    dialog.current?.close();
  };
  return (
    <dialog ref={dialog} aria-labelledby="question" onClose={onClose}>
      <h2 id="question">{question}</h2>
      {children}
      <div class="actions">
        <button onClick={() => dialog.current?.close()}>No, go back</button>
        <button class={danger ? "danger" : "primary"} onClick={act}>{action}</button>
      </div>
    </dialog>
  );
}
