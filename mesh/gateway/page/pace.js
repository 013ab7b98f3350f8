// When to draw: with the next frame, and never so often that the page has no time for its user.

const BUSY = 4; // drawing may take one part in so many of the time

export class Pace {
  /** @param {() => void} draw */
  constructor(draw) {
    this.draw = draw;
    this.notBefore = 0; // ms
    this.isWaiting = false;
  }

  /** Draw soon; what is asked for until then is drawn with it. */
  soon() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    const wait = this.notBefore - performance.now();
    const frame = () => requestAnimationFrame(() => this.#frame());
    if (wait > 0) setTimeout(frame, wait);
    else frame();
  }

  #frame() {
    const before = performance.now();
    this.isWaiting = false;
    this.draw();
    const now = performance.now();
    this.notBefore = now + BUSY * (now - before);
  }
}
