// The little that pages do by themselves: everything works without it but live updates.
"use strict";

document.addEventListener("change", (event) => {
  const field = event.target;
  if (field instanceof HTMLInputElement && "ticks" in field.dataset) {
    for (const one of document.getElementById(field.dataset.ticks).elements) if (one.type === "checkbox") one.checked = field.checked;
  }
  if (field instanceof HTMLElement && "submits" in field.dataset) field.form.requestSubmit();
});

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-copies]") : null;
  if (!button) return;
  const source = document.getElementById(button.dataset.copies);
  await navigator.clipboard.writeText(source.value ?? source.textContent.trim());
  button.textContent = "Copied";
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.asks;
  if (question && !window.confirm(question)) event.preventDefault();
});

// Small pictures come many at once. What has none and is new is asked for again; what is older is drawn in its place.
async function fill(sheet) {
  const images = [...sheet.querySelectorAll("li:not(.coming) img[data-version]:not([src])")];
  if (images.length) {
    const answer = await fetch(`${sheet.dataset.thumbnails}?versions=${images.map((one) => one.dataset.version).join()}`);
    const pictures = answer.ok ? await answer.json() : {};
    for (const picture of images) {
      const png = pictures[picture.dataset.version];
      picture.src = png ? `data:image/png;base64,${png}` : picture.dataset.frame;
    }
  }
  if (sheet.querySelector(".coming")) setTimeout(askAgain, 2000, sheet);
}

async function askAgain(sheet) {
  if (!sheet.isConnected) return;
  const answer = await fetch(sheet.dataset.again, { headers: { "HX-Request": "true" } });
  const fresh = answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : document;
  for (const one of sheet.querySelectorAll(".coming")) {
    const now = fresh.getElementById(one.id);
    if (now && !now.classList.contains("coming")) one.replaceWith(document.adoptNode(now));
  }
  fill(sheet);
}

// What is far out of view is taken out of the page, and put back before it comes into view: however many there are.
const folded = new WeakMap();
const folding = new IntersectionObserver((entries) => {
  for (const { target: sheet, isIntersecting } of entries) {
    if (isIntersecting && folded.has(sheet)) {
      sheet.replaceChildren(...folded.get(sheet));
      folded.delete(sheet);
      sheet.style.minHeight = "";
      fill(sheet);
    } else if (!isIntersecting && !folded.has(sheet) && !sheet.contains(document.activeElement)) {
      sheet.style.minHeight = `${sheet.offsetHeight}px`;
      for (const picture of sheet.querySelectorAll("img")) picture.removeAttribute("src");
      folded.set(sheet, [...sheet.children]);
      sheet.replaceChildren();
    }
  }
}, { rootMargin: "3000px 0px" });

document.addEventListener("htmx:load", (event) => {
  const part = event.target;
  const sheets = part.matches("[data-thumbnails]") ? [part] : part.querySelectorAll("[data-thumbnails]");
  for (const sheet of sheets) {
    fill(sheet);
    folding.observe(sheet);
  }
});

for (const button of document.querySelectorAll("[data-needs-script]")) button.hidden = false;
document.documentElement.classList.add("has-script");
