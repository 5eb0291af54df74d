import { useEffect, useState } from "preact/hooks";
import { getFile, type ApiFile, type Batch } from "../api";
import { save } from "../download";
import { bytes } from "../format";
import { Problem } from "./pieces";

export function Files({ batch }: { batch: Batch }) {
  return (
    <section class="card" aria-labelledby="files">
      <h2 id="files">Files</h2>
      <ul class="files">
        <One name="Input" id={batch.input_file_id} />
        {batch.output_file_id && <One name="Answers" id={batch.output_file_id} />}
        {batch.error_file_id && <One name="Errors" id={batch.error_file_id} />}
      </ul>
    </section>
  );
}

function One({ name, id }: { name: string; id: string }) {
  const [file, setFile] = useState<ApiFile | null>(null);
  const [problem, setProblem] = useState<Error | null>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    getFile(id).then(setFile, setProblem);
  }, [id]);
  const download = async () => {
    if (!file) return;
    setBusy(true);
    await save(file).catch(setProblem);
    setBusy(false);
  };
  return (
    <li>
      <span><strong>{name}</strong> <span class="quiet">{file ? `${file.filename}, ${bytes(file.bytes)}` : ""}</span></span>
      {file && (
        <button class="small" disabled={busy} onClick={download} aria-label={`Download ${name.toLowerCase()}`}>
          {busy ? "Loading…" : "Download"}
        </button>
      )}
      {problem && <Problem error={problem} />}
    </li>
  );
}
