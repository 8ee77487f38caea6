// What the page says of a terminal and of its VM, for people.
(() => {
  "use strict";

  const SIGNALS = { 1: "HUP", 2: "INT", 3: "QUIT", 6: "ABRT", 9: "KILL", 11: "SEGV", 13: "PIPE", 15: "TERM" };

  // The VM, as the page was told last. One that is asleep has suspended itself, and wakes.
  const vm = {
    get state() { return document.getElementById("vms-terminal_state").dataset.state; },
    get ready() { return this.state === "ready"; },
    get asleep() { return "asleep" in document.getElementById("vms-terminal_state").dataset; },
  };

  function howItEnded({ code, signal, timed_out: late }) {
    const how = signal ? `by signal ${signal}${SIGNALS[signal] ? `, ${SIGNALS[signal]}` : ""}` : `with exit code ${code}`;
    return `The program ended ${how}${late ? ": its time was over" : ""}.`;
  }

  function waiting() {
    if (vm.ready) return "";
    if (vm.state === "suspended") return "The VM is suspended. The screen goes on where it was when it is resumed.";
    return `The VM is ${vm.state}. The screen goes on by itself when it answers.`;
  }

  function asleep(problem) {
    const why = problem ? `${problem.detail} ` : "";
    return `${why}The VM has suspended itself. Press a key or click to wake it: everything goes on where it was.`;
  }

  // By the state of a link.
  const WORDS = {
    connecting: () => "",
    open: () => "",
    waiting,
    asleep,
    waking: () => "It wakes…",
    lost: ({ seconds, problem }) => `${problem ? `${problem.detail.replace(/\.?$/, ".")} Trying again` : "The connection is lost. Reconnecting"}${seconds > 1 ? ` in ${seconds} s` : ""}…`,
    ended: howItEnded,
    gone: () => "This session is gone: the guest was restarted, or its agent was.",
    refused: (problem) => [problem?.detail ?? "Nexus has ended this.", problem?.hint].filter(Boolean).join(" "),
  };

  window.NexusTerminalVM = vm;
  window.NexusTerminalWords = (state, detail) => WORDS[state](detail);
})();
