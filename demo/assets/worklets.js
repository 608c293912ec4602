// On the audio thread, at 24 kHz: what the microphone hears.

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

registerProcessor("duologue-microphone", Microphone);
