// Texts with a button that copies them.

import { element } from "./element.js";

/** A text with a copy button; with `href`, also a button that opens the address. */
export function copyable(text, href) {
  const button = element("button", { type: "button", className: "button" }, "Copy");
  button.setAttribute("aria-label", `Copy ${text}`);
  button.onclick = async () => {
    button.textContent = (await copy(text)) ? "Copied" : "Copy failed";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
  const open = href ? [element("a", { className: "button first", href }, "Open")] : [];
  return element("div", { className: "copy" }, element("code", { tabIndex: 0 }, text), button, ...open);
}

/** navigator.clipboard exists only on HTTPS and localhost; elsewhere this falls back to execCommand. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = element("textarea", { value: text, readOnly: true, className: "offscreen" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
