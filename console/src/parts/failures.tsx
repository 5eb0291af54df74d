// The failed lines of a batch by what went wrong. A large error file is read from its beginning, and on by request.
import { useEffect, useRef, useState } from "preact/hooks";
import { group, type Group } from "../failures";
import { count } from "../format";
import { lines, reader, type ResultLine } from "../jsonl";
import { Loading, Problem } from "./pieces";

const AT_ONCE = 2_000;

export function Failures({ fileId, total }: { fileId: string; total: number }) {
  const [groups, setGroups] = useState<Group[] | null>(null);
  const [problem, setProblem] = useState<Error | null>(null);
  const [ended, setEnded] = useState(false);
  const source = useRef<AsyncGenerator<string> | null>(null);
  const read = useRef<ResultLine[]>([]);

  const readOn = async () => {
    try {
      source.current ??= lines(reader(fileId));
      for (let taken = 0; taken < AT_ONCE; taken++) {
        const { value, done } = await source.current.next();
        if (done) {
          setEnded(true);
          break;
        }
        read.current.push(JSON.parse(value) as ResultLine);
      }
      setGroups(group(read.current));
      setProblem(null);
    } catch (error) {
      source.current = null;
      read.current = [];
      setProblem(error as Error);
    }
  };
  useEffect(() => {
    source.current = null;
    read.current = [];
    setEnded(false);
    void readOn();
  }, [fileId]);

  return (
    <section class="card wide" aria-labelledby="failures">
      <h2 id="failures">Failed lines</h2>
      {problem && <Problem error={problem} onRetry={readOn} />}
      {!groups && !problem && <Loading what="the failed lines" />}
      {groups?.map((each) => <One key={each.name} group={each} />)}
      {groups && !ended && (
        <p>
          <span class="quiet">From the first {count(read.current.length)} of {count(total)} failed lines. </span>
          <button class="small" onClick={readOn}>Read on</button>
        </p>
      )}
    </section>
  );
}

function One({ group }: { group: Group }) {
  return (
    <div class="failure">
      <h3><code>{group.name}</code> <span class="quiet">{count(group.count)} {group.count === 1 ? "line" : "lines"}</span></h3>
      <p>{group.remedy}</p>
      <ul>
        {group.samples.map((sample) => (
          <li key={sample.customId}><code>{sample.customId}</code> <span class="quiet">{sample.message}</span></li>
        ))}
      </ul>
    </div>
  );
}
