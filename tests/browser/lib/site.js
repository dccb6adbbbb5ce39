// A web site of another origin, which plays streams of a node: with plain hls.js, with video.js, and
// with the node's own page in a frame. Must not know policies.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";

import { SERVER_ADDRESS } from "./network.js";

const SCRIPTS = { "/hls.js": "hls.js/dist/hls.min.js", "/video.js": "video.js/dist/video.min.js" };

/** In each page, `play(src)` begins, and `failures` lists what its player reports. */
const page = (script, body) => `<!doctype html><title>site</title><body>${body}
${script ? `<script src="${script}"></script>` : ""}<script>
const [video, failures] = [document.querySelector("video"), []];
${PLAYERS[script] ?? "const play = (src) => (document.querySelector('iframe').src = src);"}
play(new URLSearchParams(location.search).get("src"));
</script>`;

/** Both send credentials: the stricter rules of CORS (Fetch §3.3.5) apply. */
const PLAYERS = {
  "/hls.js": `
function play(src) {
  const hls = new Hls({ xhrSetup: (xhr) => (xhr.withCredentials = true) });
  hls.on(Hls.Events.ERROR, (_, { fatal, details, response }) => fatal && failures.push(details + " " + (response?.code ?? 0)));
  hls.loadSource(src);
  hls.attachMedia(video);
}`,
  "/video.js": `
function play(src) {
  const player = videojs(video, { autoplay: "muted", html5: { vhs: { llhls: true, withCredentials: true } } });
  player.on("error", () => failures.push(player.error().message));
  player.src({ src, type: "application/vnd.apple.mpegurl" });
}`,
};

const VIDEO = '<video muted autoplay playsinline width="640" height="360"></video>';
const PAGES = {
  "/hls.js.html": () => page("/hls.js", VIDEO),
  "/video.js.html": () => page("/video.js", VIDEO),
  "/frame.html": () => page("", '<iframe allow="autoplay" width="640" height="360"></iframe>'),
};

/** Starts the site. `url(page, src)` is the URL of a page that plays `src`. */
export async function startSite(port) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://site");
    if (SCRIPTS[pathname]) {
      const script = readFileSync(new URL(`../node_modules/${SCRIPTS[pathname]}`, import.meta.url));
      response.setHeader("content-type", "text/javascript").end(script);
    } else if (PAGES[pathname]) {
      response.setHeader("content-type", "text/html").end(PAGES[pathname]());
    } else {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(port, resolve));
  const origin = `http://${SERVER_ADDRESS}:${port}`;
  return {
    origin,
    url: (name, src) => `${origin}/${name}.html?src=${encodeURIComponent(src)}`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
