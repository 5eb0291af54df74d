// The view is behind the #: one page, whatever the address of the API is.
import { useEffect, useState } from "preact/hooks";

export type Place =
  | { view: "batches"; status: string; words: string }
  | { view: "new" }
  | { view: "batch"; id: string }
  | { view: "results"; id: string };

export function placeOf(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [first, id, last] = path.split("/");
  if (first === "new") return { view: "new" };
  if (first === "batches" && id) return last === "results" ? { view: "results", id } : { view: "batch", id };
  const asked = new URLSearchParams(query);
  return { view: "batches", status: asked.get("status") ?? "", words: asked.get("q") ?? "" };
}

export function batchesLink(status: string, words: string): string {
  const query = new URLSearchParams();
  if (status) query.set("status", status);
  if (words) query.set("q", words);
  return `#/${query.size ? `?${query}` : ""}`;
}

export function go(hash: string): void {
  location.hash = hash;
}

export function usePlace(): Place {
  const [place, setPlace] = useState(placeOf(location.hash));
  useEffect(() => {
    const moved = () => setPlace(placeOf(location.hash));
    window.addEventListener("hashchange", moved);
    return () => window.removeEventListener("hashchange", moved);
  }, []);
  return place;
}

// As `go`, without a step in the browser's history.
export function replace(hash: string): void {
  history.replaceState(null, "", hash);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}
