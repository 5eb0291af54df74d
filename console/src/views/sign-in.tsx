import { useState } from "preact/hooks";
import { ApiError, listModels } from "../api";
import { signIn, signOut } from "../session";

interface SigningIn {
  refused: boolean;
  onSignedIn: () => void;
}

export function SignIn({ refused, onSignedIn }: SigningIn) {
  const [problem, setProblem] = useState(refused ? "The key is not valid any more. Sign in with another one." : "");
  const [busy, setBusy] = useState(false);

  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const key = String(new FormData(event.currentTarget as HTMLFormElement).get("key") ?? "").trim();
    if (!key) return setProblem("Enter your API key.");
    setBusy(true);
    signIn(key);
    try {
      await listModels();
      onSignedIn();
    } catch (error) {
      signOut();
      const isWrong = error instanceof ApiError && error.status === 401;
      setProblem(
        isWrong ? "This key is not valid. Check it, or ask your operator for a new one." : (error as Error).message,
      );
      setBusy(false);
    }
  };

  return (
    <form class="card sign-in" onSubmit={submit}>
      <h1>Sign in</h1>
      <p class="quiet">
        With the API key that your programs use. It stays in this tab, and is forgotten when you close it.
      </p>
      <label for="key">API key</label>
      <input
        id="key" name="key" type="password" autocomplete="off" spellcheck={false} placeholder="sk-ns-…"
        aria-invalid={problem ? true : undefined} aria-describedby={problem ? "problem" : undefined}
      />
      {problem && <p id="problem" class="problem" role="alert">{problem}</p>}
      <button class="primary" disabled={busy}>{busy ? "Checking…" : "Sign in"}</button>
    </form>
  );
}
