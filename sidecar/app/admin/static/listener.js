// Requests to the admin listener.

const PATIENCE_MS = 8_000; // longer than the listener waits for a stuck worker

export async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }).catch(() => {
    throw new Error("The sidecar does not answer.");
  });
  const answer = await response.json();
  if (answer.error && !("accepted" in answer)) throw new Error(answer.error);
  return answer;
}
