"use strict";
// Values of charts where the pointer is, and with the arrow keys.
for (const area of document.querySelectorAll(".area")) {
  const points = [...area.querySelectorAll(".point")];
  const read = area.closest("figure").querySelector(".read");
  let at = -1;
  const show = (place) => {
    if (points[at]) points[at].classList.remove("on");
    at = place;
    if (!points[at]) { read.textContent = ""; return; }
    points[at].classList.add("on");
    read.textContent = points[at].querySelector("title").textContent;
  };
  area.addEventListener("keydown", (event) => {
    const last = points.length - 1;
    const steps = { ArrowLeft: Math.max(0, at - 1), ArrowRight: Math.min(last, at + 1), Home: 0, End: last };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(steps[event.key]);
  });
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const x = 100 * (event.clientX - box.left) / box.width;
    show(points.findIndex((point) => x >= +point.dataset.from && x < +point.dataset.to));
  });
  area.addEventListener("pointerleave", () => show(-1));
  area.addEventListener("blur", () => show(-1));
}
// Buttons that copy what stands beside them.
for (const button of document.querySelectorAll(".copied button")) {
  const source = button.parentElement.querySelector("pre");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
}
// Search among the rows, and choose those that were picked for one reason.
const controls = document.querySelector(".controls");
if (controls) {
  const samples = [...document.querySelectorAll(".sample")];
  const search = controls.querySelector("input");
  const buttons = [...controls.querySelectorAll("button")];
  const none = document.querySelector(".no-sample");
  let why = "";
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const sample of samples) {
      const text = sample.textContent.toLowerCase();
      const fits = (!why || sample.dataset.why.split(",").includes(why)) && words.every((word) => text.includes(word));
      sample.hidden = !fits;
      shown += fits;
    }
    none.hidden = shown > 0;
  };
  const choose = (reason) => {
    why = reason;
    for (const other of buttons) other.setAttribute("aria-pressed", String(other.dataset.why === reason));
    apply();
  };
  search.addEventListener("input", () => (search.value && why ? choose("") : apply()));
  for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.why));
  controls.hidden = false;
  if (buttons.some((button) => button.dataset.why === "random")) choose("random");
}
