import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";
import { usePlace, type Place } from "./router";
import { apiKey, signOut } from "./session";
import { BatchView } from "./views/batch";
import { Batches } from "./views/batches";
import { NewBatch } from "./views/new";
import { Results } from "./views/results";
import { SignIn } from "./views/sign-in";

const TITLES: Record<Place["view"], string> = {
  batches: "Batches", new: "New batch", batch: "Batch", results: "Results",
};

export function App() {
  const [signedIn, setSignedIn] = useState(apiKey() !== null);
  const [refused, setRefused] = useState(false);
  const place = usePlace();
  const main = useRef<HTMLElement>(null);
  const view = "id" in place ? `${place.view} ${place.id}` : place.view;
  const first = useRef(true);

  useEffect(() => {
    document.title = `${signedIn ? TITLES[place.view] : "Sign in"} – Nightshift`;
    // Keyboards and screen readers begin at the top of a new view, as with a new page.
    if (!first.current) main.current?.focus();
    first.current = false;
    window.scrollTo(0, 0);
  }, [view, signedIn]);

  const leave = useCallback((becauseRefused: boolean) => {
    signOut();
    setRefused(becauseRefused);
    setSignedIn(false);
  }, []);
  const onError = useCallback(
    (error: Error | null) => {
      if (error instanceof ApiError && error.status === 401) leave(true);
    },
    [leave],
  );

  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        Skip to the content
      </a>
      <header class="bar">
        <a class="brand" href="#/">
          <Moon /> Nightshift
        </a>
        {signedIn && (
          <nav aria-label="Console">
            <a href="#/" aria-current={place.view === "batches" ? "page" : undefined}>Batches</a>
            <a href="#/new" aria-current={place.view === "new" ? "page" : undefined}>New batch</a>
            <a href="docs">API</a>
            <button class="plain" onClick={() => leave(false)}>Sign out</button>
          </nav>
        )}
      </header>
      <main id="main" tabIndex={-1} ref={main}>
        {!signedIn ? (
          <SignIn refused={refused} onSignedIn={() => (setRefused(false), setSignedIn(true))} />
        ) : place.view === "new" ? (
          <NewBatch onError={onError} />
        ) : place.view === "batch" ? (
          <BatchView key={place.id} id={place.id} onError={onError} />
        ) : place.view === "results" ? (
          <Results key={place.id} id={place.id} onError={onError} />
        ) : (
          <Batches status={place.status} words={place.words} onError={onError} />
        )}
      </main>
    </>
  );
}

function Moon() {
  return (
    <svg class="moon" viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
      <rect width="32" height="32" rx="9" />
      <path d="M21.5 20.6A8 8 0 0 1 12.1 8.4a8.6 8.6 0 1 0 11.6 11.2 8 8 0 0 1-2.2 1z" />
    </svg>
  );
}
