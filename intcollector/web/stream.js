// The stream of pictures and events. It is one EventSource; this file says what state it is in.

const SILENT_AFTER_S = 5;
/** Hidden for so long: let go, so that the collector need not look for nobody. */
const HIDDEN_AFTER_S = 10;
const AGAIN_AFTER_S = [0.5, 1, 2, 3];

/**
 * handlers: picture(text) and events(text), as they came; state({name, silent}), when it changes and once a second while
 * silent. name: "connecting", "live", "lost", "hidden"; silent: seconds since the last picture, null if there was none.
 */
export class Stream {
  constructor(url, handlers) {
    this.url = url;
    this.handlers = handlers;
    this.last = null;
    this.tries = 0;
    this.name = "connecting";
    this.timer = null;
    this.hiding = null;
    document.addEventListener("visibilitychange", () => this.#visibility());
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => event.persisted && this.open());
    this.open();
    setInterval(() => this.#look(), 1000);
  }

  open() {
    this.#close();
    const source = (this.source = new EventSource(this.url));
    source.addEventListener("picture", (event) => {
      this.last = performance.now();
      this.tries = 0;
      this.#say("live");
      this.handlers.picture(event.data);
    });
    source.addEventListener("events", (event) => this.handlers.events(event.data));
    source.addEventListener("error", () => {
      this.#say(this.last === null ? "connecting" : "lost");
      // the browser tries again after seconds, or not at all if the answer was no stream: sooner, and always
      source.close();
      clearTimeout(this.timer);
      const wait = AGAIN_AFTER_S[Math.min(this.tries++, AGAIN_AFTER_S.length - 1)];
      this.timer = setTimeout(() => this.source === source && this.open(), wait * 1000);
    });
  }

  get silent() {
    return this.last === null ? null : (performance.now() - this.last) / 1000;
  }

  #close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  #look() {
    if (this.name === "hidden") return;
    if (this.name === "live" && this.silent > SILENT_AFTER_S) {
      this.#say("lost");
      this.timer = setTimeout(() => this.name === "lost" && this.open(), SILENT_AFTER_S * 1000); // a connection that is dead
    } else if (this.name !== "live") this.handlers.state(this);
  }

  #visibility() {
    clearTimeout(this.hiding);
    if (document.hidden) {
      this.hiding = setTimeout(() => {
        this.#close();
        this.#say("hidden");
      }, HIDDEN_AFTER_S * 1000);
    } else if (this.name === "hidden") {
      this.#say("connecting");
      this.open();
    }
  }

  #say(name) {
    if (this.name === name) return;
    this.name = name;
    this.handlers.state(this);
  }
}
