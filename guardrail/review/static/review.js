// Keys, and the part of a page that loads late. Everything here also works without it: keys press buttons that are there.
"use strict";
document.documentElement.classList.add("js");

const typing = (target) => target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");

function press(element) {
  if (element.matches("textarea, input:not([type=checkbox])")) {
    element.focus();
  } else {
    element.click();
  }
  const edit = element.closest("[data-edit]");
  if (edit && element.matches("summary") && edit.open !== undefined) {
    requestAnimationFrame(() => edit.open && edit.querySelector("textarea").focus());
  }
}

function move(step) {
  const items = [...document.querySelectorAll("[data-item]")];
  if (!items.length) return;
  const at = items.indexOf(document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : items.length - 1) : Math.min(items.length - 1, Math.max(0, at + step));
  items[next].focus();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && typing(event.target)) {
    const form = event.target.closest("form");
    const edit = event.target.closest("[data-edit]");
    const button = (edit || form).querySelector("button:not([type=button])");
    if (form && button && (edit || !form.matches("[data-keep]"))) form.requestSubmit(button);
    return;
  }
  if (event.key === "Escape" && typing(event.target)) event.target.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const dialog = document.getElementById("keys");
  if (dialog && dialog.open) return;
  if (event.key === "?" && dialog) dialog.showModal();
  else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else {
    const wanted = /^[a-z0-9]$/.test(event.key) && document.querySelector(`[data-key="${event.key}"]`);
    if (!wanted) return;
    press(wanted);
  }
  event.preventDefault();
});

for (const select of document.querySelectorAll("select[data-submit]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

// A page that is left with something typed in it asks first.
let sending = false;
document.addEventListener("submit", () => { sending = true; });
window.addEventListener("beforeunload", (event) => {
  const typed = [...document.querySelectorAll("form[data-keep] textarea")].some((area) => area.value !== area.defaultValue);
  if (typed && !sending) event.preventDefault();
});

// While the queue is open, say so when a new draft is held: somebody waits for it.
const urgent = document.querySelector("[data-urgent]");
if (urgent) {
  setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(urgent.dataset.urgent, { credentials: "same-origin" });
      const { held } = await answer.json();
      urgent.hidden = held <= Number(urgent.dataset.known);
      document.title = document.title.replace(/^(\(\d+\) )?/, urgent.hidden ? "" : `(${held}) `);
    } catch {
      // the next try may reach the server
    }
  }, 15000);
}

for (const section of document.querySelectorAll("[data-load]")) {
  const place = section.querySelector("[data-place]");
  const look = new IntersectionObserver(async (seen) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    look.disconnect();
    try {
      const answer = await fetch(section.dataset.load, { credentials: "same-origin" });
      if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      place.replaceChildren(...page.body.childNodes);
    } catch {
      place.append(" (could not be loaded)");
    }
  });
  look.observe(section);
}
