// What is wrong and what to do, worst first. With no reports it is what the page is about.

import { List, byId, el, setAttribute, setHidden, setText } from "./dom.js";

const WORST = { bad: 0, warn: 1, ok: 2 };
const WORDS = { bad: "Problem", warn: "Look at this", ok: "All well" };
const ICONS = { bad: "✕", warn: "!", ok: "✓" };

export class Diagnosis {
  constructor() {
    this.section = byId("diagnosis");
    this.list = new List(byId("findings"), (finding) => `${finding.what} ${finding.state}`, makeFinding);
    this.said = "";
  }

  update(picture) {
    const { collector } = picture;
    const findings = [...picture.diagnosis].sort((a, b) => WORST[a.state] - WORST[b.state]);
    const worst = findings[0]?.state ?? "ok";
    setAttribute(this.section, "class", `diagnosis ${worst}`);
    setText(byId("diagnosis-title"), title(collector, worst));
    const lead = collector.not_ready ?? (collector.reports === 0 ? "This page shows the network as soon as reports come. What was seen so far:" : null);
    setText(byId("diagnosis-lead"), lead ?? "");
    setHidden(byId("diagnosis-lead"), !lead);
    this.list.update(findings);
    // read out when something else is found, not whenever a number moves
    const said = findings.map((finding) => `${finding.what} ${finding.state}`).join();
    if (said !== this.said) {
      this.said = said;
      setText(byId("diagnosis-live"), findings.map((one) => `${WORDS[one.state]}: ${one.found}. ${one.advice}`).join(" "));
    }
  }
}

function title(collector, worst) {
  if (collector.reports === 0 && collector.malformed > 0) return "Packets come, but none can be read as a report";
  if (collector.reports === 0) return collector.packets > 0 ? "No reports yet, but other packets" : "No reports yet";
  return { bad: "Something is wrong", warn: "Something to look at", ok: "All well" }[worst];
}

function makeFinding() {
  const icon = el("span", { class: "finding-icon", "aria-hidden": "true" });
  const word = el("span", { class: "unseen" });
  const what = el("strong", { class: "finding-what" });
  const found = el("span", { class: "finding-found" });
  const advice = el("p", { class: "finding-advice" });
  const text = el("p", { class: "finding-text" }, word, what, found);
  const element = el("li", {}, icon, el("div", {}, text, advice));
  let last = null;
  return {
    element,
    update(finding) {
      const now = JSON.stringify(finding);
      if (now === last) return;
      const before = last && JSON.parse(last);
      last = now;
      setAttribute(element, "class", `finding ${finding.state}`);
      setText(icon, ICONS[finding.state]);
      setText(word, `${WORDS[finding.state]}: `);
      setText(what, finding.what);
      if (before?.found !== finding.found) found.replaceChildren(...marked(finding.found, false));
      if (before?.advice !== finding.advice) advice.replaceChildren(...marked(finding.advice, true));
      setHidden(advice, !finding.advice);
    },
  };
}

/** Text with `what can be typed` as code; copy: with a button that copies it. */
function marked(text, copy) {
  return (text ?? "").split("`").map((part, at) => {
    if (at % 2 === 0) return document.createTextNode(part);
    return copy ? copyable(part) : el("code", {}, part);
  });
}

function copyable(text) {
  const code = el("code", {}, text);
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${text}` }, "copy");
  button.addEventListener("click", async () => {
    setText(button, (await copied(text, code)) ? "copied" : "press Ctrl+C");
    setTimeout(() => setText(button, "copy"), 2000);
  });
  return el("span", { class: "copyable" }, code, button);
}

/** Without https there is no clipboard for pages but this old way. */
async function copied(text, code) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
    }
  }
  const range = document.createRange();
  range.selectNodeContents(code);
  const marked_ = getSelection();
  marked_.removeAllRanges();
  marked_.addRange(range);
  return document.execCommand("copy");
}
