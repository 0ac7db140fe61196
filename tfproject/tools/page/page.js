"use strict";
const at = (id) => document.getElementById(id);
let limits = { max_bytes: Infinity };
let latest = 0;

function say(text, isError = false) {
  at("status").textContent = text;
  at("status").className = isError ? "error" : "";
}

async function classify(file) {
  const turn = ++latest; // an answer to an earlier image must not replace a later one's
  at("result").hidden = true;
  if (file.size > limits.max_bytes) {
    say(`The file has ${(file.size / 1e6).toFixed(1)} MB; give one of at most ${limits.max_bytes / 1e6} MB.`, true);
    return;
  }
  say("Looking …");
  let answer;
  try {
    const type = file.type || "application/octet-stream";
    const response = await fetch("classify", { method: "POST", body: file, headers: { "Content-Type": type } });
    answer = await response.json();
  } catch {
    answer = { error: "The server does not answer; see whether it still runs." };
  }
  if (turn !== latest) return;
  if (answer.error) say(answer.error, true);
  else show(answer);
}

function show(answer) {
  const best = answer.classes[0];
  say("");
  at("verdict").textContent = answer.abstains ? `Not sure; perhaps ${best.class}` : best.class;
  at("seen").src = answer.image;
  at("heat").hidden = at("caption").hidden = !answer.heat_map;
  at("heat").src = answer.heat_map || "data:,";
  at("heat").alt = at("shown").textContent =
    `heat map (${answer.method}): where the method sees most for ${best.class}`;
  at("classes").replaceChildren(...answer.classes.map((found) => {
    const row = document.createElement("tr");
    const name = document.createElement("td");
    name.textContent = found.class;
    const number = document.createElement("td");
    number.className = "number";
    number.textContent = `${(100 * found.probability).toFixed(1)} %`;
    const bar = document.createElement("td");
    const meter = document.createElement("meter");
    meter.value = found.probability;
    bar.append(meter);
    row.append(name, number, bar);
    return row;
  }));
  at("result").hidden = false;
}

at("file").addEventListener("change", (event) => {
  if (event.target.files.length) classify(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
at("strength").addEventListener("input", (event) => { at("heat").style.opacity = event.target.value / 100; });
at("heat").style.opacity = 0.6;
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault(); // beside the field too: the browser would leave the page for the image
    at("drop").classList.toggle("over", name === "dragover");
    const file = name === "drop" && event.dataTransfer.files[0];
    if (file) classify(file);
  });
}
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
fetch("about").then((response) => response.json()).then((about) => {
  limits = about;
  at("about").textContent =
    `${about.model} tells ${about.class_names.length} classes apart: ${about.class_names.join(", ")}. ` +
    `Images of at most ${about.max_bytes / 1e6} MB; nothing is stored.`;
});
