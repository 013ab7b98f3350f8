// The conversation's place on screen: it follows what is written, until its reader looks elsewhere.

const NEAR_PX = 120; // from the end: whoever reads there wants to follow

export class Scroll {
  /** @param {HTMLElement} element that scrolls @param {HTMLButtonElement} button back to the end */
  constructor(element, button) {
    this.element = element;
    this.button = button;
    element.addEventListener("scroll", () => this.#told(), { passive: true });
    button.addEventListener("click", () => this.toEnd());
  }

  get isNearEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < NEAR_PX;
  }

  toStart() {
    this.element.scrollTop = 0;
    this.#told();
  }

  toEnd() {
    this.element.scrollTop = this.element.scrollHeight;
    this.#told();
  }

  /** Do what may make the content grow; who was at its end stays there. @param {() => void} work */
  following(work) {
    const follows = this.isNearEnd;
    work();
    if (follows) this.toEnd();
    else this.#told();
  }

  #told() {
    this.button.hidden = this.isNearEnd;
  }
}
