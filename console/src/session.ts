// The caller's key: in the storage of this tab alone, and gone when the tab closes.
const NAME = "nightshift.key";

export function apiKey(): string | null {
  return sessionStorage.getItem(NAME);
}

export function signIn(key: string): void {
  sessionStorage.setItem(NAME, key);
}

export function signOut(): void {
  sessionStorage.removeItem(NAME);
}

// `nightshift console` opens the page with the key behind the #, which no server sees. It leaves the address at once.
export function takeKeyFromAddress(): void {
  const match = /^#key=(.+)$/.exec(location.hash);
  if (!match?.[1]) return;
  signIn(decodeURIComponent(match[1]));
  history.replaceState(null, "", location.pathname + location.search + "#/");
}
