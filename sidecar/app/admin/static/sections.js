// Fetches a section only while it is visible, and nothing while the page is paused or in the background.

export const page = { paused: false, lost: false };

const sections = new Map();

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const section = sections.get(entry.target);
    section.seen = entry.isIntersecting;
    if (section.seen) run(section);
  }
}, { rootMargin: "200px" });

// Calls `load` when the element becomes visible, and regularly while it is.
export function whileSeen(element, everyMs, load) {
  sections.set(element, { load, everyMs, seen: false, timer: 0, loading: false, loaded: 0 });
  observer.observe(element);
}

// Loads the visible sections now, after a change.
export function reload(element) {
  const section = sections.get(element);
  section.loaded = 0;
  run(section);
}

export function resume() {
  for (const section of sections.values()) run(section);
}

async function run(section) {
  clearTimeout(section.timer);
  if (section.loading || !section.seen || page.paused || document.hidden) return;
  const wait = section.loaded + section.everyMs - performance.now();
  if (section.loaded && wait > 0) {
    section.timer = setTimeout(run, wait, section);
    return;
  }
  section.loading = true;
  section.loaded = performance.now();
  try {
    await section.load();
  } catch {
    // the status, fetched every two seconds, reports that the sidecar does not answer
  } finally {
    section.loading = false;
    section.timer = setTimeout(run, section.everyMs, section);
  }
}

document.addEventListener("visibilitychange", resume);
