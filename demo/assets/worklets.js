// On the audio thread: what the microphone hears, at the protocol's rate.

const PIECE_S = 0.02;
const REACH = 16; // samples on each side, at the lower of both rates, of which a resampled one is made

// Samples at one rate to samples at another, by a windowed sinc that lets pass what both can hold.
class Resampler {
  constructor(rate, wanted) {
    this.step = rate / wanted;
    this.pass = Math.min(1, wanted / rate) * 0.95;
    this.reach = Math.ceil(REACH * Math.max(1, this.step));
    this.kept = new Float32Array(this.reach); // the silence before the first sample
    this.at = this.reach; // in what is kept: where the next sample is to be taken
  }
  weight(x) {
    if (Math.abs(x) >= this.reach) return 0;
    const y = Math.PI * this.pass * x;
    return this.pass * (y ? Math.sin(y) / y : 1) * (0.5 + 0.5 * Math.cos((Math.PI * x) / this.reach));
  }
  push(samples) {
    const all = new Float32Array(this.kept.length + samples.length);
    all.set(this.kept);
    all.set(samples, this.kept.length);
    const made = [];
    for (; this.at + this.reach < all.length; this.at += this.step) {
      let sum = 0;
      for (let i = Math.ceil(this.at - this.reach); i <= this.at + this.reach; i++) sum += all[i] * this.weight(i - this.at);
      made.push(sum);
    }
    const over = Math.max(0, Math.floor(this.at - this.reach));
    this.kept = all.slice(over);
    this.at -= over;
    return made;
  }
}

// Posts 20 ms at a time: the samples, when they began in the context's time, and how loud they are.
class Microphone extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate } }) {
    super();
    this.rate = rate;
    this.resampler = rate === sampleRate ? null : new Resampler(sampleRate, rate);
    this.begin();
  }
  begin() {
    this.buffer = new Float32Array(PIECE_S * this.rate);
    this.filled = 0;
  }
  process([input]) {
    if (!input[0]) return true;
    const samples = this.resampler ? this.resampler.push(input[0]) : input[0];
    for (let i = 0; i < samples.length; i++) {
      this.buffer[this.filled++] = samples[i];
      if (this.filled < this.buffer.length) continue;
      const power = this.buffer.reduce((sum, x) => sum + x * x, 0) / this.filled;
      const began = currentTime + (i + 1 - this.filled) / this.rate;
      this.port.postMessage({ samples: this.buffer, began, level: Math.sqrt(power) });
      this.begin();
    }
    return true;
  }
}

registerProcessor("duologue-microphone", Microphone);
