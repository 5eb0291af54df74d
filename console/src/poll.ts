// Asking again and again, gently: slower while nothing changes, and not at all while the tab is hidden.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

const FIRST = 1_500;
const LONGEST = 30_000;

export interface Polled<T> {
  value: T | null;
  error: Error | null;
  refresh: () => void;
}

// The next pause in milliseconds: longer after each answer that is as the one before, and after each failure.
export function nextPause(pause: number, changed: boolean): number {
  return changed ? FIRST : Math.min(LONGEST, pause * 1.5);
}

// `ask` is called at once, again whenever it is another function, and then while `isLive` of its last value.
export function usePoll<T>(ask: (signal: AbortSignal) => Promise<T>, isLive: (value: T) => boolean): Polled<T> {
  const [value, setValue] = useState<T | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const [round, setRound] = useState(0);
  const live = useRef(isLive);
  live.current = isLive;

  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    let pause = FIRST;
    let last = "";
    let asking = false;

    const look = async () => {
      window.clearTimeout(timer);
      if (asking || document.hidden) return; // visibilitychange looks again
      asking = true;
      let goesOn = true;
      try {
        const found = await ask(abort.signal);
        if (abort.signal.aborted) return;
        const text = JSON.stringify(found);
        pause = nextPause(pause, text !== last);
        last = text;
        setValue(found);
        setError(null);
        goesOn = live.current(found);
      } catch (problem) {
        if (abort.signal.aborted) return;
        pause = nextPause(pause, false);
        setError(problem as Error);
      } finally {
        asking = false;
      }
      if (goesOn) timer = window.setTimeout(look, pause);
    };
    const seen = () => {
      if (!document.hidden) void look();
    };
    document.addEventListener("visibilitychange", seen);
    window.addEventListener("online", seen);
    void look();
    return () => {
      abort.abort();
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
      window.removeEventListener("online", seen);
    };
  }, [ask, round]);

  return { value, error, refresh: useCallback(() => setRound((number) => number + 1), []) };
}

// The time in seconds, which moves on while somebody looks.
export function useNow(every = 1000): number {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const timer = window.setInterval(() => !document.hidden && setNow(Date.now() / 1000), every);
    return () => window.clearInterval(timer);
  }, [every]);
  return now;
}
