// The service that this page belongs to, by addresses relative to the page: it may be in any folder of a proxy.

// The server's own limits, as it filled them in: file_bytes, seconds (of all recordings that are asked at once),
// text_chars, formats.
export const limits = JSON.parse(document.body.dataset.limits);

// What keeps a visitor from going on: a title of few words, what it means and what helps.
export class Problem extends Error {
  constructor(title, message, code = "") {
    super(message);
    this.title = title;
    this.code = code;
  }
}

export function connect() {
  const url = new URL("v1/realtime?model=local", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, ["realtime"]);
}

// Why there is no connection: a browser does not tell a page how its WebSocket was refused, so it asks once more.
export async function reason() {
  try {
    const answer = await fetch("page/room");
    if (answer.ok) return new Problem("No connection", "The service is there, but no conversation could be opened: it may just have been full, or a proxy in front of it does not pass WebSockets on. Try again.");
    if (answer.status === 401) return new Problem("Signed out", "You are not signed in any more. Reload this page to sign in again.");
    if (answer.status === 429) return new Problem("Your places are taken", "All conversations that your key may have at a time are under way, perhaps in another tab or program. End one of them, then try again; what you wrote stays here.", "full");
    const wait = Number(answer.headers.get("retry-after"));
    const text = await messageOf(answer);
    if (answer.status === 503 && wait) return new Problem("Every place is taken", `Others are talking now, and there is no place for one more. Try again in ${inWords(wait)}; what you wrote stays here.`, "full");
    return new Problem("No connection", text);
  } catch {
    if (navigator.onLine === false) return new Problem("You are offline", "This device has no network now. Try again once it has.", "away");
    return new Problem("The service cannot be reached", "It may have been stopped, or the network between it and you is down. Try again in a moment.", "away");
  }
}

function inWords(seconds) {
  return seconds < 90 ? `${seconds} seconds` : `${Math.round(seconds / 60)} minutes`;
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
  if (file.size > limits.file_bytes) {
    throw new Error(`The file has ${megabytes(file.size)}; at most ${megabytes(limits.file_bytes)} are read. Take a shorter piece of it, or save it as FLAC, MP3 or Ogg.`);
  }
  let answer;
  try {
    answer = await fetch("page/recording", { method: "POST", body: file });
  } catch {
    throw new Error("The recording could not be sent: the connection broke off.");
  }
  if (!answer.ok) throw new Error(answer.status === 401 ? (await reason()).message : await messageOf(answer));
  return new Int16Array(await answer.arrayBuffer());
}

function megabytes(bytes) {
  return `${Math.round(bytes / 104857.6) / 10} MB`;
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
