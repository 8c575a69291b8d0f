// Short forms of numbers and times.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const short = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const number = (value) => whole.format(value);
export const rate = (perSecond) => (perSecond >= 100 ? whole.format(perSecond) : perSecond.toFixed(1));
export const minuteOfDay = (at) => short.format(at);

// 14:02:10, with the day if it is not today.
export const time = (iso) => withDay(iso, clock);
export const minuteAndDay = (iso) => withDay(iso, short);

function withDay(iso, form) {
  const at = new Date(iso);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? form.format(at) : `${day.format(at)} ${form.format(at)}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(2))} ms`;
  if (seconds < 60) return `${Number(seconds.toPrecision(2))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.round(seconds / 3600);
  return hours < 48 ? `${hours} h` : `${Math.round(seconds / 86400)} days`;
}

export const wholeSeconds = (seconds) =>
  duration(seconds < 60 ? Math.round(seconds) || 0 : seconds).replace(/^0 ms$/, "0 s");
export const ago = (iso, now) => `${wholeSeconds(Math.max(0, (now - new Date(iso)) / 1000))} ago`;

export const counted = (value, what) => `${number(value)} ${what}${value === 1 ? "" : "s"}`;
