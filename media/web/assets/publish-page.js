// The publish page of one app.

import * as api from "./api.js";
import { publishSection } from "./publish.js";

const app = decodeURIComponent(location.pathname.split("/")[1]);
document.title = `Publish to ${app} · Headwater`;

for (let attempt = 0; ; attempt++) {
  try {
    publishSection(document.getElementById("publish"), await api.node(), { app, heading: "h1" });
    break;
  } catch {
    await api.pause(api.backoffMs(attempt));
  }
}
