// Saves a stored file under its own name. The browser keeps large ones on its disk.
import { request, type ApiFile } from "./api";

export async function save(file: ApiFile): Promise<void> {
  const answer = await request(`files/${file.id}/content`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = file.filename;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
