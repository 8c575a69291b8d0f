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
  sections.set(element, { load, everyMs, seen: false, timer: 0, loading: null, loaded: 0 });
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

function run(section) {
  clearTimeout(section.timer);
  if (section.loading || !section.seen || page.paused || document.hidden) return;
  const wait = section.loaded + section.everyMs - performance.now();
  if (section.loaded && wait > 0) {
    section.timer = setTimeout(run, wait, section);
    return;
  }
  load(section);
}

async function load(section) {
  section.loaded = performance.now();
  section.loading = section.load().catch(() => {}); // the status, fetched every two seconds, reports that the sidecar does not answer
  await section.loading;
  section.loading = null;
  clearTimeout(section.timer);
  section.timer = setTimeout(run, section.everyMs, section);
}

// A link to a section: what stands above the section grows while it loads, so the section is scrolled to once more then.
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[href^='#']");
  if (!link || page.paused) return;
  await Promise.all([...sections.values()].map((section) => section.loading ?? load(section)));
  document.querySelector(link.getAttribute("href")).scrollIntoView();
});

document.addEventListener("visibilitychange", resume);
