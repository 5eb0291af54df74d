import { useCallback, useState } from "preact/hooks";
import { listDeliveries, redeliver, type Batch, type Delivery } from "../api";
import { usePoll } from "../poll";
import { Problem, Time } from "./pieces";

export function Deliveries({ batch }: { batch: Batch }) {
  // Anew with each status: its end sends a webhook.
  const ask = useCallback((signal: AbortSignal) => listDeliveries(batch.id, signal), [batch.id, batch.status]);
  const { value, error, refresh } = usePoll(ask, ({ data }) => data.some((each) => each.status === "pending"));
  const [problem, setProblem] = useState<Error | null>(null);
  const again = async (delivery: Delivery) => {
    setProblem(null);
    await redeliver(batch.id, delivery.id).catch(setProblem);
    refresh();
  };
  const deliveries = value?.data ?? [];
  return (
    <section class="card" aria-labelledby="webhooks">
      <h2 id="webhooks">Webhooks</h2>
      {(problem ?? error) && <Problem error={(problem ?? error)!} />}
      {!deliveries.length && <p class="quiet">{batch.callback_url ? "Sent when the batch ends." : "None were sent."}</p>}
      <ul class="deliveries">
        {deliveries.map((each) => (
          <li key={each.id}>
            <span class={`status ${each.status}`}>{each.status}</span> <code>{each.event_type}</code>
            <span class="url">{each.url}</span>
            <ol>
              {each.attempts.map((attempt) => (
                <li key={attempt.attempted_at}>
                  <Time at={attempt.attempted_at} /> <code>{attempt.status_code ?? attempt.error}</code>
                </li>
              ))}
            </ol>
            <button class="small" onClick={() => again(each)}>Send again</button>
          </li>
        ))}
      </ul>
    </section>
  );
}
