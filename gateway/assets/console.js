// The console's one script. Every page works without it; what it adds: progress of uploads.
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

/** Gives a part of the page what the script adds. */
function enliven(part) {
  part.querySelectorAll("form[data-upload]").forEach(upload);
}

enliven(document);
