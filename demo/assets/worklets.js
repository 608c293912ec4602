// Two processors on the audio thread, at 24 kHz: what the microphone hears, and what the loudspeaker plays.

// Posts 40 ms at a time: the samples, when they began in the context's time, and how loud they are.
class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.buffer = new Float32Array(960);
    this.filled = 0;
  }
  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    for (let i = 0; i < samples.length; i++) {
      this.buffer[this.filled++] = samples[i];
      if (this.filled === this.buffer.length) {
        const power = this.buffer.reduce((sum, x) => sum + x * x, 0) / this.filled;
        const began = currentTime + (i + 1 - this.filled) / sampleRate;
        this.port.postMessage({ samples: this.buffer, began, level: Math.sqrt(power) });
        this.buffer = new Float32Array(960);
        this.filled = 0;
      }
    }
    return true;
  }
}

// Plays what it is sent, after a moment's reserve against a network that stumbles. {clear} silences it within one
// block of 128 samples. Tells, 25 times a second, how much of each answer has been played, and how loud it is.
class Speaker extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = [];
    this.waiting = 0;
    this.running = false;
    this.told = 0;
    this.peak = 0;
    this.last = 0;
    this.port.onmessage = ({ data }) => {
      if (data.clear) {
        this.queue = [];
        this.waiting = 0;
        this.running = false;
      } else if (data.end) {
        this.running = true; // no more will come: play what there is
      } else {
        this.queue.push({ samples: data.samples, at: 0, item: data.item });
        this.waiting += data.samples.length;
      }
    };
  }
  process(inputs, [output]) {
    const out = output[0];
    if (!this.running && this.waiting >= 0.1 * sampleRate) this.running = true;
    let item = null;
    let count = 0;
    for (let i = 0; this.running && i < out.length && this.queue.length; i++) {
      const piece = this.queue[0];
      out[i] = piece.samples[piece.at++];
      item = piece.item;
      count++;
      this.peak = Math.max(this.peak, Math.abs(out[i]));
      if (piece.at === piece.samples.length) this.queue.shift();
    }
    this.waiting -= count;
    if (!this.queue.length) this.running = false;
    if (item) this.port.postMessage({ item, count, at: currentTime + count / sampleRate });
    if (currentTime - this.told >= 0.04) {
      this.told = currentTime;
      this.port.postMessage({ level: this.peak });
      this.peak = 0;
    }
    return true;
  }
}

registerProcessor("duologue-microphone", Microphone);
registerProcessor("duologue-speaker", Speaker);
