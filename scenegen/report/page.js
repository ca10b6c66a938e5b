"use strict";
(() => {
  const form = document.querySelector(".filters");
  const cards = [...document.querySelectorAll(".card")];
  const verdicts = {
    clean: (found) => !found.includes("fail") && !found.includes("error") && !found.includes("none"),
  };
  const matches = (card, wanted) => {
    const found = card.dataset.statuses.split(" ");
    return (
      wanted.words.every((word) => card.dataset.text.includes(word)) &&
      (!wanted.split || card.dataset.split === wanted.split) &&
      (!wanted.category || card.dataset.categories.includes("|" + wanted.category + "|")) &&
      (!wanted.verdict || (verdicts[wanted.verdict] || ((list) => list.includes(wanted.verdict)))(found))
    );
  };
  const apply = () => {
    const data = new FormData(form);
    const wanted = {
      words: data.get("text").toLowerCase().split(/\s+/).filter(Boolean),
      split: data.get("split"),
      category: data.get("category"),
      verdict: data.get("verdict"),
    };
    let shown = 0;
    for (const card of cards) {
      card.hidden = !matches(card, wanted);
      shown += !card.hidden;
    }
    form.querySelector("output").textContent = shown === cards.length ? `${shown} scenes` : `${shown} of ${cards.length} scenes`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select, textarea")) {
      event.preventDefault();
      form.elements.text.focus();
    }
  });
  // A link to a scene that the filters hide shows it.
  addEventListener("hashchange", () => {
    const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (card?.hidden) {
      form.reset();
      setTimeout(() => card.scrollIntoView());
    }
  });
  apply();
})();
