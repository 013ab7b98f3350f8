// Who is there, asked gently: under a key, these requests count like any other.

import * as api from "./api.js";

const ROUND_MS = 5000;
const TROUBLE_MS = 30_000; // after a refusal: over a key's limit, or no key at all

/** @typedef {{peers: any[], models: any[], unready: string}} News `unready` says why nothing can be asked, "" when something can */

export class MeshWatch {
  /** @param {(news: News) => void} onNews @param {(words: string) => void} onTrouble */
  constructor(onNews, onTrouble) {
    this.onNews = onNews;
    this.onTrouble = onTrouble;
    /** @type {News} */
    this.news = { peers: [], models: [], unready: "" };
    this.offered = ""; // by whom and what, when models were asked for last
  }

  /** Ask now, and from now on while somebody looks at the page. */
  async run() {
    const wait = await this.ask();
    setTimeout(() => {
      if (document.visibilityState === "visible") void this.run();
      else document.addEventListener("visibilitychange", () => void this.run(), { once: true });
    }, wait);
  }

  /** One round; how long to wait before the next, in ms. */
  async ask() {
    try {
      const peers = await api.peers();
      const offered = JSON.stringify(peers.map(({ id, models }) => [id, models]));
      const models = offered === this.offered ? this.news.models : await api.models();
      this.offered = offered;
      this.news = { peers, models, unready: peers.some(isAble) ? "" : await api.unready() };
      this.onNews(this.news);
      return ROUND_MS;
    } catch (error) {
      const status = error instanceof api.Refused ? error.status : 0;
      if (status !== 429) this.onTrouble(status === 401 ? "No key" : "No gateway");
      return status === 0 ? ROUND_MS : TROUBLE_MS;
    }
  }
}

/** Whether a peer can be asked for anything. @param {any} peer */
export function isAble({ state, skills }) {
  return (state === "alive" || state === "self") && skills.length > 0;
}
