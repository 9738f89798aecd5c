// The page that teaches: chapters in order, each with pictures that are computed here from the reader's words.

import { inflated, whole } from "./arrays.js";
import { loadTables } from "./colour.js";
import { byId } from "./dom.js";
import { computed, startMechanisms } from "./lesson_mechanism.js";
import { startModel, weight } from "./lesson_model.js";
import { startTranslation } from "./lesson_translate.js";
import { embedding, wordsOf } from "./draws.js";

async function start() {
  const given = JSON.parse(byId("scene").textContent);
  loadTables(JSON.parse(byId("colours").textContent));
  theme(matchMedia("(prefers-color-scheme: dark)").matches);
  if (typeof DecompressionStream === "undefined") throw new Error("this page needs a browser from 2023 or later (DecompressionStream)");
  const buffers = await inflated(given.arrays), programs = new Map(), numbers = new Map(), pool = buffers[given.numbers.at];
  const json = (reference) => JSON.parse(new TextDecoder().decode(whole(buffers, reference)));
  const lesson = {
    about: json(given.about),
    program: (name) => programs.get(name) || programs.set(name, json(given.programs[name])).get(name),
    constants: (reference) => {
      const { begin, bytes, type, shape } = reference, name = `${begin} ${bytes} ${type}`;
      if (!numbers.has(name)) numbers.set(name, whole([pool.slice(begin, begin + bytes)], { at: 0, type, shape: [shape.reduce((a, b) => a * b, 1)] }));
      return numbers.get(name);
    },
  };
  const draw = () => {
    startTranslation(lesson);
    startMechanisms(lesson);
    startModel(lesson);
  };
  byId("theme").addEventListener("click", () => {
    theme(document.documentElement.dataset.theme !== "dark");
    for (const id of ["source", "sentence", "prompt"]) for (const kind of ["input", "change"]) byId(id).dispatchEvent(new Event(kind));
  });
  draw();
  window.regard = { computed, weight, embedding, wordsOf, lesson };
  document.body.dataset.ready = "true";
}

const theme = (dark) => (document.documentElement.dataset.theme = dark ? "dark" : "light");

start().catch((error) => {
  byId("notice").hidden = false;
  byId("notice").textContent = `This page could not be drawn: ${error.message}`;
  throw error;
});
