// The console's one script. Every page works without it; what it adds: progress of uploads, devices to choose from while
// one types, how a task gets on, what passes between a device and the gateway and how all is while one looks at it.
"use strict";

/** Sends a form with a file and shows how far it is; the page that answers takes this one's place. */
function upload(form) {
  const file = form.querySelector("input[type=file]");
  const size = form.elements.size;
  form.addEventListener("submit", (event) => {
    if (!file.files.length) return;
    event.preventDefault();
    if (size) size.value = file.files[0].size;
    const bar = document.createElement("progress");
    const text = document.createElement("p");
    const button = form.querySelector("button.primary, button");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", form.dataset.upload);
    text.setAttribute("role", "status");
    button.disabled = true;
    form.append(text, bar);
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.upload.onprogress = (sent) => {
      if (!sent.lengthComputable) return;
      bar.value = sent.loaded / sent.total;
      text.textContent = `${form.dataset.upload}: ${Math.floor(bar.value * 100)} %`;
    };
    request.onload = () => {
      if (request.responseURL && request.status < 400) location.assign(request.responseURL);
      else replace(request.responseText);
    };
    request.onerror = () => form.submit();
    request.send(new FormData(form));
  });
}

/** Shows a page that answers a form in the place of this one. */
function replace(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  document.title = page.title;
  document.body.replaceWith(document.adoptNode(page.body));
  enliven(document);
  const wrong = document.querySelector("[aria-invalid], [role=alert]");
  if (wrong) wrong.focus();
}

/** Offers devices whose names hold what was typed. */
function suggest(input) {
  const list = input.list;
  let timer;
  let asked = "";
  input.addEventListener("input", () => {
    clearTimeout(timer);
    const text = input.value.trim();
    if (text.length < 2 || text === asked) return;
    timer = setTimeout(async () => {
      asked = text;
      const resource = input.form.elements.resource.value;
      const query = new URLSearchParams({ resource, text });
      const answer = await fetch(`${input.dataset.suggest}?${query}`);
      if (!answer.ok || asked !== text) return;
      const names = (await answer.text()).split("\n").filter(Boolean);
      list.replaceChildren(...names.map((name) => new Option(name, name)));
    }, 250);
  });
}

/** One box that ticks all of a name in its form. */
function chooseAll(box) {
  box.hidden = false;
  const others = () => box.form.querySelectorAll(`input[name="${box.dataset.all}"]`);
  box.addEventListener("change", () => others().forEach((other) => { other.checked = box.checked; }));
}

/** Keeps a task's page as the task is. Rows that cannot be seen are left until they can. */
function watch(page) {
  const rows = new Map();
  const seen = new Set();
  const news = new Map();
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const id = target.dataset.row;
      if (!isIntersecting) seen.delete(id);
      else {
        seen.add(id);
        if (news.has(id)) show(id);
      }
    }
  });
  for (const row of page.querySelectorAll("[data-row]")) {
    rows.set(row.dataset.row, row);
    observer.observe(row);
  }
  function show(id) {
    const { state, word, percent, why, attempt } = news.get(id);
    const row = rows.get(id);
    news.delete(id);
    const shown = row.querySelector(".state");
    shown.className = `state ${state}`;
    shown.textContent = word;
    row.querySelector("progress").value = percent;
    row.querySelector(".percent").textContent = `${percent} %`;
    row.querySelector(".why").textContent = why;
    row.lastElementChild.textContent = attempt;
  }
  /** Whether there is nothing that this page lists: deliveries of its state, or of any where it has none. */
  const isNone = (counts) => counts.every(([state, count]) => count === "0" || (page.dataset.state && state !== page.dataset.state));
  const counts = [...page.querySelectorAll("[data-count]")];
  // A page that had nothing to list is loaded anew once there is something; one past the end of its list never is.
  const isEarly = isNone(counts.map((one) => [one.dataset.count, one.textContent]));
  const source = new EventSource(`${page.dataset.live}?rows=${[...rows.keys()].join(",")}`);
  source.onmessage = ({ data }) => {
    const change = JSON.parse(data);
    const state = page.querySelector("#state");
    if (state.textContent !== change.word) {
      state.className = `state ${change.state}`;
      state.textContent = change.word;
    }
    page.querySelector("#total").textContent = change.total;
    for (const [name, count, from, length] of change.counts) {
      const part = page.querySelector(`[data-part="${name}"]`);
      part.setAttribute("x", from);
      part.setAttribute("width", length);
      page.querySelector(`[data-count="${name}"]`).textContent = count;
    }
    for (const row of change.rows) {
      if (!rows.has(row.id)) continue;
      news.set(row.id, row);
      if (seen.has(row.id)) show(row.id);
    }
    if (change.is_over) {
      source.close();
      // What can be done now is another thing: a page that nobody is at work on is loaded anew.
      if (!page.querySelector("input:checked, details[open]")) anew();
    } else if (isEarly && !isNone(change.counts)) {
      source.close();
      location.reload();
    }
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) lose(page);
  };
  addEventListener("pagehide", () => source.close());
}

/** Loads the page anew; what it said of something that was done is left out once there was time to read it. */
function anew() {
  const address = new URL(location.href);
  address.hash = "";
  if (performance.now() > 3000) address.searchParams.delete("note");
  location.replace(address);
}

/** Says in a part of the page that it is kept up to date no more. */
function lose(part) {
  const lost = document.createElement("p");
  lost.className = "notice warn";
  lost.setAttribute("role", "status");
  lost.textContent = part.dataset.lost;
  part.prepend(lost);
}

/** Puts the messages of a device above those of before, as they pass. */
function listen(part) {
  const table = part.querySelector(".table");
  const rows = table.querySelector("tbody");
  const source = new EventSource(part.dataset.messages);
  source.onmessage = ({ data }) => {
    const page = new DOMParser().parseFromString(`<table><tbody>${data}</tbody></table>`, "text/html");
    rows.prepend(...page.querySelectorAll("tr"));
    while (rows.childElementCount > part.dataset.most) rows.lastElementChild.remove();
    part.querySelector(".empty").hidden = true;
    table.hidden = false;
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) lose(part);
  };
  addEventListener("pagehide", () => source.close());
}

/** This page as it is now, or nothing. It is nobody's doing, so it does not make the session last. */
async function now() {
  const headers = { accept: "text/html", "x-headgate-refresh": "1" };
  const answer = await fetch(location.href, { headers }).catch(() => null);
  // The session has ended: the sign-in says so, and leads back.
  if (answer && answer.redirected) location.reload();
  if (!answer || !answer.ok || answer.redirected) return null;
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

/** Keeps parts of the page as they are now, while it is looked at; one that somebody is at work in is left as it is. */
function refresh(parts) {
  if (!parts.length) return;
  const isInUse = (part) => part.contains(document.activeElement) || (!getSelection().isCollapsed && getSelection().containsNode(part, true));
  const timer = setTimeout(async () => {
    const page = document.hidden ? null : await now();
    for (const part of page ? [...parts, document.querySelector("footer")] : []) {
      const fresh = part.id ? page.getElementById(part.id) : page.querySelector("footer");
      if (!fresh || fresh.innerHTML === part.innerHTML || isInUse(part)) continue;
      part.replaceChildren(...document.adoptNode(fresh).childNodes);
    }
    refresh(parts);
  }, 5000);
  addEventListener("pagehide", () => clearTimeout(timer), { once: true });
}

/** Keeps a part of the page that is going on as it is, until it has ended or someone is at work on it. */
function again(part) {
  const timer = setTimeout(async () => {
    const page = await now();
    if (!page || part.querySelector("details[open]") || part.contains(document.activeElement)) return again(part);
    const fresh = document.adoptNode(page.getElementById(part.id));
    part.replaceWith(fresh);
    if (fresh.dataset.again !== undefined) again(fresh);
  }, 1000);
  addEventListener("pagehide", () => clearTimeout(timer), { once: true });
}

/** Gives a part of the page what the script adds. */
function enliven(part) {
  part.querySelectorAll("form[data-upload]").forEach(upload);
  part.querySelectorAll("[data-suggest]").forEach(suggest);
  part.querySelectorAll("[data-all]").forEach(chooseAll);
  part.querySelectorAll("[data-live]").forEach(watch);
  part.querySelectorAll("[data-messages]").forEach(listen);
  part.querySelectorAll("[data-again]").forEach(again);
  refresh(part.querySelectorAll("[data-fresh]"));
}

enliven(document);

// Where the navigation is a line, the place where one is may be out of sight.
const place = document.querySelector("body > nav [aria-current]");
if (place) place.scrollIntoView({ block: "nearest", inline: "center" });
