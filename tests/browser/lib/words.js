// Finds words that a reader cannot read as a whole. Runs in the page, so it must not depend on
// anything outside its own function.

/** The words in the page's `main` that are split across lines, cut off, or outside the page. */
export function brokenWords() {
  const broken = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    for (const { 0: word, index } of text.data.matchAll(/\S+/g)) {
      const range = document.createRange();
      range.setStart(text, index);
      range.setEnd(text, index + word.length);
      const boxes = [...range.getClientRects()];
      const lines = new Set(boxes.map((box) => Math.round(box.top)));
      const at = text.parentElement.closest("td, th, .id") ?? text.parentElement;
      const isCut = boxes.length > 0 && getComputedStyle(at).overflowX === "hidden" && at.scrollWidth > at.clientWidth;
      const isOutside = boxes.some((box) => box.left < 0 || box.right > innerWidth);
      if (lines.size > 1 || isCut || isOutside) broken.push(word);
    }
  }
  return broken;
}
