// On the audio thread, at 24 kHz: what the microphone hears.

// Posts 20 ms at a time: the samples, when they began in the context's time, and how loud they are.
const PIECE = 480; // samples

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.buffer = new Float32Array(PIECE);
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
        this.buffer = new Float32Array(PIECE);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("duologue-microphone", Microphone);
