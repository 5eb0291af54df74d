// The list of batches as it grows: the newest page, asked for again and again, and older pages that were asked for.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { listBatches, type Batch, type Page } from "./api";
import { hasEnded } from "./batch";
import { usePoll } from "./poll";

const PAGE = 50;
// Who looks back looks far: the most that the API gives at once.
const OLDER_PAGE = 100;

export function useBatches(status: string) {
  const [older, setOlder] = useState<Batch[]>([]);
  const [olderHasMore, setOlderHasMore] = useState<boolean | null>(null);
  const [moreError, setMoreError] = useState<Error | null>(null);
  const kept = useRef<Batch[]>([]);
  kept.current = older;

  const ask = useCallback(
    async (signal: AbortSignal): Promise<Page<Batch>> => {
      const page = await listBatches(status, null, PAGE, signal);
      const fresh = await lookAgain(page, kept.current, status, signal);
      if (fresh.size) setOlder((before) => before.map((batch) => fresh.get(batch.id) ?? batch));
      return page;
    },
    [status],
  );
  useEffect(() => {
    setOlder([]);
    setOlderHasMore(null);
  }, [status]);
  const { value, error, refresh } = usePoll(ask, () => true);

  const newest = value?.data ?? [];
  const batches = merged(newest, older);
  const last = batches.at(-1)?.id ?? null;
  const more = useCallback(async () => {
    try {
      const page = await listBatches(status, last, OLDER_PAGE);
      setOlder((before) => merged(before, page.data));
      setOlderHasMore(page.has_more);
      setMoreError(null);
    } catch (problem) {
      setMoreError(problem as Error);
    }
  }, [status, last]);
  // As new batches come, others fall off the newest page.
  useEffect(() => {
    if (olderHasMore !== null && newest.length) setOlder((before) => merged(newest, before));
  }, [value]);

  const hasMore = olderHasMore ?? value?.has_more ?? false;
  return { batches, error: error ?? moreError, loading: value === null, hasMore, more, refresh };
}

// Older batches that still run, with those around them, as they are now.
async function lookAgain(
  page: Page<Batch>, older: Batch[], status: string, signal: AbortSignal,
): Promise<Map<string, Batch>> {
  const known = new Set(page.data.map((batch) => batch.id));
  const first = older.findIndex((batch) => !known.has(batch.id) && !hasEnded(batch));
  if (first === -1) return new Map();
  const again = await listBatches(status, older[first - 1]?.id ?? page.last_id, PAGE, signal);
  return new Map(again.data.map((batch) => [batch.id, batch]));
}

// Newest first, each batch once; of two, the one in `first`. Ids sort by their time.
export function merged(first: readonly Batch[], second: readonly Batch[]): Batch[] {
  const known = new Set(first.map((batch) => batch.id));
  return [...first, ...second.filter((batch) => !known.has(batch.id))].sort((a, b) => (a.id < b.id ? 1 : -1));
}
