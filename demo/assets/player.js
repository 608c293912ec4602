// Plays a reply while it is being made. The component's value names a turn; its samples are pulled from the server piece
// by piece and queued one behind the other in Web Audio, at the reply's own rate, so pieces join without a gap or a click.
// When the reply is whole it is put into the <audio> element, to be heard again or saved.
const audio = element.querySelector("audio");
const link = element.querySelector("a");
let context = null;
let turn = "";
let url = "";

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

function wavOf(pieces, rate) {
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const view = new DataView(new ArrayBuffer(44));
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, "RIFF"), view.setUint32(4, 36 + size, true), word(8, "WAVEfmt "), view.setUint32(16, 16, true);
  view.setUint16(20, 1, true), view.setUint16(22, 1, true); // PCM, mono
  view.setUint32(24, rate, true), view.setUint32(28, 2 * rate, true), view.setUint16(32, 2, true), view.setUint16(34, 16, true);
  word(36, "data"), view.setUint32(40, size, true);
  return new Blob([view, ...pieces], { type: "audio/wav" });
}

function hush() {
  audio.pause();
  if (context) context.close();
  context = null;
}

function show(blob) {
  if (url) URL.revokeObjectURL(url);
  url = blob ? URL.createObjectURL(blob) : "";
  if (url) {
    audio.src = url;
    link.href = url;
  } else {
    audio.removeAttribute("src");
    audio.load();
    link.removeAttribute("href");
  }
  element.querySelector(".player").dataset.state = url ? "ready" : "empty";
}

async function play(mine) {
  hush();
  show(null);
  turn = mine;
  if (!mine) return;
  const pieces = [];
  let at = 0;
  let answer = { have: 0, done: false };
  while (!answer.done && turn === mine) {
    answer = await server.pull({ turn: mine, have: answer.have });
    if (turn !== mine) return;
    if (!answer.pcm) continue;
    const bytes = bytesOf(answer.pcm);
    pieces.push(bytes);
    if (!context) {
      context = new AudioContext({ sampleRate: answer.rate });
      context.resume(); // a browser that has seen no click yet starts it with the first one
      element.querySelector(".player").dataset.state = "speaking";
    }
    const samples = Float32Array.from(new Int16Array(bytes.buffer), (sample) => sample / 32768);
    const buffer = context.createBuffer(1, samples.length, answer.rate);
    buffer.copyToChannel(samples, 0);
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    at = Math.max(at, context.currentTime + 0.03);
    source.start(at);
    at += buffer.duration;
  }
  if (pieces.length && turn === mine) show(wavOf(pieces, answer.rate));
}

audio.addEventListener("play", () => {
  if (context) context.suspend(); // the live rendering gives way to the replay
});
watch("value", () => play(props.value));
