// The last ten seconds of both sides, drawn only while it can be seen.
const SPAN = 250; // points, 40 ms each

export class Waveform {
  constructor(canvas) {
    this.canvas = canvas;
    this.levels = { "--you": new Array(SPAN).fill(0), "--it": new Array(SPAN).fill(0) };
    this.drawn = -Infinity;
  }

  push(heard, said) {
    for (const [name, level] of [["--you", heard], ["--it", said]]) {
      this.levels[name].shift();
      this.levels[name].push(Math.min(1, level));
    }
  }

  // At most fifteen times a second: the sound is to have the processor.
  draw(now) {
    const { canvas } = this;
    if (now - this.drawn < 66 || !canvas.clientWidth) return;
    this.drawn = now;
    const width = Math.floor(canvas.clientWidth * devicePixelRatio);
    const height = Math.floor(canvas.clientHeight * devicePixelRatio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    pen.clearRect(0, 0, width, height);
    Object.entries(this.levels).forEach(([colour, levels], row) => {
      pen.fillStyle = style.getPropertyValue(colour);
      levels.forEach((level, i) => {
        const tall = Math.max(devicePixelRatio, level * height * 0.45);
        pen.fillRect((i * width) / SPAN, (0.25 + 0.5 * row) * height - tall / 2, Math.max(1, (0.7 * width) / SPAN), tall);
      });
    });
  }
}
