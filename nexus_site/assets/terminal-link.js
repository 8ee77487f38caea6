// One session of a guest over its websocket: it goes on where it stopped after a lost network,
// sends no more than the server allows, and takes no more than the screen can draw.
//
// A websocket cannot be told to wait. When more than BEHIND_MOST bytes wait to be drawn, the link
// hangs up, and comes back when they are drawn. The agent holds no program up meanwhile and keeps
// the end of its output: of a flood one sees the newest part, after a line that says how much was
// left out. So nothing piles up anywhere, and what one types is never far behind.
(() => {
  "use strict";

  const BEHIND_MOST = 1 << 20; // bytes that wait to be drawn
  const BEHIND_LEAST = 64 << 10; // at which the link comes back
  const WAITING_MOST = 4 << 20; // bytes of input that wait to be sent
  const INPUT_WINDOW = 256 << 10; // bytes of input that may be on their way
  const PIECE = 32 << 10;
  const RETRY_FIRST = 300; // ms between two tries
  const RETRY_MOST = 10_000;
  const REDRAW_AFTER = 100; // ms
  const [DONE, LOST] = [1000, 1006]; // close codes; 4000 and more are those of HTTP
  const SESSION_GONE = 4404;
  const PASSING = new Set([4409, 4429, 4500, 4503]); // problems that may be over at the next try
  const LASTING = new Set(["agent-outdated"]); // unless they have this code
  const NOT_YET = "cannot-run"; // a guest whose init has hardly begun has no terminals yet
  const BOOT_MOST = 180_000; // ms for which that may be so
  const BOOT_RETRY = 2000;
  const ASLEEP = "vm-asleep"; // the VM has suspended itself: only a person wakes it

  // What the page gives: `size()` is the terminal's {rows, cols}, `mayTry()` whether the guest can
  // answer now. `draw(bytes, drawn)` shows output and calls `drawn` when that is done;
  // `skip(count)` says that so many bytes are missing. `attached({tty, stdin})` comes first each
  // time; `told(state, detail)` is "connecting", "open", "waiting" (for the guest), "asleep" (until
  // `wake`), "waking", "lost" (with the seconds until the next try, and a problem where there is
  // one), "ended" (with code or signal), "gone", or "refused" (with the problem). After the last
  // three the link is over.
  class TerminalLink {
    #url; #start; #page;
    #socket = null;
    #attached = false;
    #tty = true;
    #offset = 0; // of the next byte that is taken
    #behind = 0; // bytes taken and not drawn
    #waiting = []; // input not yet sent
    #waitingBytes = 0;
    #window = 0;
    #pause = RETRY_FIRST;
    #timer = 0;
    #problem = null;
    #wakes = false; // this try is a person's, and wakes the VM
    #made = Date.now();
    over = false;

    constructor(path, start, page) {
      this.#url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
      this.#start = start;
      this.#page = page;
      this.#page.told("connecting");
      this.connect();
    }

    // Whether the program has ever been there: one that was can be gone.
    get begun() { return !this.#start; }

    // Try now, unless it is connected, over, or has more to draw.
    connect() {
      clearTimeout(this.#timer);
      this.#timer = 0;
      if (this.over || this.#socket || this.#behind > BEHIND_LEAST) return;
      if (!this.#wakes && !this.#page.mayTry()) { this.#page.told("waiting"); return; }
      this.#problem = null;
      const socket = new WebSocket(this.#url);
      this.#socket = socket;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => socket.send(JSON.stringify({ offset: this.#offset, start: this.#start, wake: this.#wakes, ...this.#page.size() }));
      socket.onmessage = ({ data }) => (typeof data === "string" ? this.#hear(JSON.parse(data)) : this.#take(new Uint8Array(data)));
      socket.onclose = (event) => this.#closed(event);
    }

    // A person wants it: wake the VM. What is typed meanwhile is sent when it is awake.
    wake() {
      if (this.over || this.#wakes || this.#attached) return;
      this.#hangUp();
      this.#wakes = true;
      this.#page.told("waking");
      this.connect();
    }

    // Input, in the order in which it comes. False, and dropped, while nobody would take it soon:
    // what is typed blindly should not run when the network is back.
    type(bytes) {
      const soon = this.#attached || this.#behind || this.#start || this.#wakes;
      if (this.over || !soon || this.#waitingBytes + bytes.length > WAITING_MOST) return false;
      this.#waiting.push(bytes);
      this.#waitingBytes += bytes.length;
      this.#pump();
      return true;
    }

    resize(size) { if (this.#tty) this.#tell({ type: "resize", ...size }); }
    signal(name) { this.#tell({ type: "signal", signal: name }); }

    // The network is gone: the socket would notice much later.
    drop() { if (this.#socket) this.#closed({ code: LOST }); }

    // The agent does not know the session any more.
    lose() { if (!this.over) this.#end("gone"); }

    close() {
      this.over = true;
      clearTimeout(this.#timer);
      this.#hangUp();
    }

    // What the server says

    #hear(message) {
      if (message.type === "attached") this.#begin(message);
      else if (message.type === "gap") this.#goOnAt(message.offset);
      else if (message.type === "window") { this.#window += message.bytes; this.#pump(); }
      else if (message.type === "exit") this.#end("ended", message);
      else if (message.type === "error") this.#problem = message.problem;
    }

    #begin({ offset, tty, stdin }) {
      this.#attached = true;
      this.#wakes = false;
      this.#start = null;
      this.#pause = RETRY_FIRST;
      this.#window = INPUT_WINDOW;
      this.#tty = tty;
      this.#page.attached({ tty, stdin });
      this.#page.told("open");
      this.resize(this.#page.size());
      this.#goOnAt(offset);
      this.#pump();
    }

    #take(frame) {
      const data = frame.subarray(1); // after its kind: stdout or stderr
      this.#offset += data.length;
      this.#behind += data.length;
      this.#page.draw(data, () => this.#drawn(data.length));
      if (this.#behind > BEHIND_MOST) this.#hangUp();
    }

    #drawn(count) {
      const wasBehind = this.#behind > BEHIND_LEAST;
      this.#behind -= count;
      if (wasBehind && this.#behind <= BEHIND_LEAST && !this.#timer) this.connect();
    }

    // What is missing may have been half of a screen: one size less and back again has a program
    // that fills the screen draw it anew.
    #goOnAt(offset) {
      const missing = offset - this.#offset;
      this.#offset = offset;
      if (missing <= 0) return;
      this.#page.skip(missing);
      const { rows, cols } = this.#page.size();
      this.resize({ rows: Math.max(rows - 1, 1), cols });
      setTimeout(() => this.resize(this.#page.size()), REDRAW_AFTER);
    }

    // The socket

    #pump() {
      while (this.#attached && this.#window > 0 && this.#waiting.length) {
        const next = this.#waiting.shift();
        const piece = next.subarray(0, Math.min(this.#window, PIECE));
        if (piece.length < next.length) this.#waiting.unshift(next.subarray(piece.length));
        this.#window -= piece.length;
        this.#waitingBytes -= piece.length;
        this.#socket.send(piece);
      }
    }

    #tell(message) { if (this.#attached) this.#socket.send(JSON.stringify(message)); }

    #hangUp() {
      const socket = this.#socket;
      this.#socket = null;
      this.#attached = false;
      if (!socket) return;
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }

    #closed({ code }) {
      this.#hangUp();
      if (this.over) return;
      if (code === SESSION_GONE && this.begun) return this.#end("gone");
      if (this.#lasts(code, this.#problem?.code)) return this.#end("refused", this.#problem);
      const failed = this.#wakes && this.#problem;
      this.#wakes = false;
      if (this.begun) [this.#waiting, this.#waitingBytes] = [[], 0];
      if (this.#problem?.code === ASLEEP) return this.#page.told("asleep");
      if (failed && !this.#page.mayTry()) return this.#page.told("asleep", failed);
      if (!this.#page.mayTry()) return this.#page.told("waiting");
      const most = this.#problem?.code === NOT_YET ? BOOT_RETRY : RETRY_MOST;
      const pause = Math.min(this.#pause, most) * (0.75 + Math.random() / 2);
      this.#pause = Math.min(this.#pause * 2, RETRY_MOST);
      this.#timer = setTimeout(() => this.connect(), pause);
      this.#page.told("lost", { seconds: Math.ceil(pause / 1000), problem: this.#problem });
    }

    #lasts(code, problem) {
      if (problem === NOT_YET && this.#start) return Date.now() - this.#made > BOOT_MOST;
      return code === DONE || (code >= 4000 && !PASSING.has(code)) || LASTING.has(problem);
    }

    #end(state, detail) {
      this.close();
      this.#page.told(state, detail);
    }
  }

  window.NexusTerminalLink = TerminalLink;
})();
