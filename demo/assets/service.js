// The service that this page belongs to, by addresses relative to the page: it may be in any folder of a proxy.

export function connect() {
  const url = new URL("v1/realtime?model=local", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, ["realtime"]);
}

// Why there is no connection: a browser does not tell a page how its WebSocket was refused, so it asks once more.
export async function reason() {
  try {
    const answer = await fetch("v1/models");
    if (answer.status === 401) return "You are not signed in any more. Reload this page to sign in again.";
    if (!answer.ok) return await messageOf(answer);
    return "The service is full now, or a proxy in front of it does not pass WebSockets on. Try again soon.";
  } catch {
    return "The service cannot be reached.";
  }
}

// What a refusal says: our own are JSON, a proxy's are pages.
export async function messageOf(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    if (answer.status === 413) return "The file is larger than the proxy in front of this page lets through (nginx: client_max_body_size). Take a smaller one.";
    return `Something in front of this page answers ${answer.status} ${answer.statusText}.`;
  }
}

// Reads a recording of any kind: its samples at 24 kHz.
export async function samplesOf(file) {
  let answer;
  try {
    answer = await fetch("page/recording", { method: "POST", body: file });
  } catch {
    throw new Error("The recording could not be sent: the connection broke off.");
  }
  if (!answer.ok) throw new Error(answer.status === 401 ? await reason() : await messageOf(answer));
  return new Int16Array(await answer.arrayBuffer());
}

export function base64Of(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

export function samplesOfBase64(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}
