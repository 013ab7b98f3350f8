// Conversations, kept in this browser and nowhere else: IndexedDB, bounded. Without it they last as long as the page.

import { stop } from "./run.js";

/** @typedef {import("./run.js").Run} Run */
/**
 * @typedef {{role: "user", text: string}} UserTurn
 * @typedef {{role: "assistant", run: Run, rating: "" | "up" | "down"}} AnswerTurn
 * @typedef {{id: string, title: string, updated: number}} Head
 * @typedef {Head & {turns: (UserTurn | AnswerTurn)[]}} Conversation
 */

export const CONVERSATIONS_MAX = 200; // the oldest goes
const CHARS_MAX = 4_000_000; // of one conversation as JSON; a longer one is not kept

/** @returns {Conversation} */
export function newConversation() {
  return { id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), title: "", updated: Date.now(), turns: [] };
}

export class Store {
  /** @param {IDBDatabase | null} database */
  constructor(database) {
    this.database = database;
  }

  /** @returns {Promise<Store>} */
  static open() {
    return new Promise((resolve, reject) => {
      const asked = indexedDB.open("monai", 1);
      asked.onupgradeneeded = () => {
        asked.result.createObjectStore("heads", { keyPath: "id" });
        asked.result.createObjectStore("bodies", { keyPath: "id" });
      };
      asked.onsuccess = () => resolve(asked.result);
      asked.onerror = () => reject(asked.error);
    }).then((database) => new Store(/** @type {IDBDatabase} */ (database)), () => new Store(null));
  }

  /** All conversations without their turns, newest first. @returns {Promise<Head[]>} */
  async heads() {
    const found = await this.#do("readonly", (heads) => heads.getAll());
    return (found ?? []).toSorted((/** @type {Head} */ one, /** @type {Head} */ other) => other.updated - one.updated);
  }

  /** @param {string} id @returns {Promise<Conversation | null>} */
  async load(id) {
    const found = await this.#do("readonly", (_, bodies) => bodies.get(id));
    // The page was left while an answer came.
    for (const turn of found?.turns ?? []) if (turn.run?.status === "running") stop(turn.run);
    return found ?? null;
  }

  /** Keep this one, and the newest of the others; false when it is too long or there is no room.
   * @param {Conversation} conversation */
  async save(conversation) {
    const text = JSON.stringify(conversation);
    if (!this.database || text.length > CHARS_MAX) return false;
    const { id, title, updated } = conversation;
    for (const old of (await this.heads()).filter((head) => head.id !== id).slice(CONVERSATIONS_MAX - 1)) {
      await this.remove(old.id);
    }
    const done = await this.#do("readwrite", (heads, bodies) => {
      bodies.put(JSON.parse(text));
      return heads.put({ id, title, updated });
    });
    return done !== null;
  }

  /** @param {string} id */
  async remove(id) {
    await this.#do("readwrite", (heads, bodies) => {
      bodies.delete(id);
      return heads.delete(id);
    });
  }

  async clear() {
    await this.#do("readwrite", (heads, bodies) => {
      bodies.clear();
      return heads.clear();
    });
  }

  /** What a request of one transaction gives; null when it failed, as it does when the disk is full.
   * @param {IDBTransactionMode} mode @param {(heads: IDBObjectStore, bodies: IDBObjectStore) => IDBRequest} work
   * @returns {Promise<any>} */
  #do(mode, work) {
    return new Promise((resolve) => {
      if (!this.database) return resolve(null);
      const transaction = this.database.transaction(["heads", "bodies"], mode);
      const request = work(transaction.objectStore("heads"), transaction.objectStore("bodies"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => resolve(null);
    });
  }
}
