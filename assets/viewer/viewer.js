// The page that looks into a file with h5web: its place in the page says which file, and where the portal tells of it.
import "@h5web/app/styles.css";

import { App, createBasicFetcher, H5GroveProvider } from "@h5web/app";
import { createElement } from "react";
import { createRoot } from "react-dom/client";

const place = document.getElementById("viewer");
const basic = createBasicFetcher({ redirect: "manual" });

// Where the login has ended, the portal leads to its page: what asks for data cannot go there, but this page can.
async function fetcher(...asked) {
  try {
    return await basic(...asked);
  } catch (error) {
    if (error.status === 0) window.location.reload();
    throw error;
  }
}

// h5web says "checked" of tabs where it means "selected", and leaves some without the list that they belong to: screen
// readers are told what is meant.
function mend() {
  for (const tab of place.querySelectorAll("[role=tab][aria-checked]")) {
    tab.setAttribute("aria-selected", tab.getAttribute("aria-checked"));
    tab.removeAttribute("aria-checked");
  }
  for (const tab of place.querySelectorAll("[role=tab]")) {
    if (!tab.closest("[role=tablist]")) tab.parentElement.setAttribute("role", "tablist");
  }
}

const app = createElement(App, {
  initialPath: place.dataset.path,
  sidebarOpen: place.clientWidth >= 800,
  disableDarkMode: document.documentElement.dataset.theme === "light",
});
const url = new URL(place.dataset.source, window.location.href).href;
place.replaceChildren();
new MutationObserver(mend).observe(place, { attributeFilter: ["aria-checked"], childList: true, subtree: true });
createRoot(place).render(createElement(H5GroveProvider, { url, filepath: place.dataset.name, fetcher }, app));
