// Formats numbers for display.

/** 2500000 -> "2.5 Mbit/s". */
export function bitrate(bps) {
  if (!bps) return "–";
  return bps >= 999_500 ? `${(bps / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bps / 1000)} kbit/s`;
}

/** 0.134 -> "134 ms"; 1.52 -> "1.5 s". */
export function seconds(value) {
  return value < 0.995 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}

/** Milliseconds as "12 s", "3 min", "2 h 05 min", "3 d 4 h". */
export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min} min`;
  const h = Math.floor(min / 60);
  if (h < 24) return `${h} h ${String(min % 60).padStart(2, "0")} min`;
  return `${Math.floor(h / 24)} d ${h % 24} h`;
}

/** 1, "viewer" -> "1 viewer"; 3 -> "3 viewers". */
export const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
