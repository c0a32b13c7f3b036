(() => {
  const rows = [...document.querySelectorAll("tbody tr")], body = rows[0] && rows[0].parentNode;
  const sorted = (column, down) => rows.sort((a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[column].dataset.sort);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = column ? x - y : x.localeCompare(y);
    return down ? -order : order;
  }).forEach((row) => body.appendChild(row));
  document.querySelectorAll("thead button").forEach((button, column) => button.addEventListener("click", () => {
    const head = button.parentNode, was = head.getAttribute("aria-sort");
    const down = was ? was === "ascending" : head.dataset.first === "descending";
    document.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    sorted(column, down);
  }));
  const parts = [...document.querySelectorAll("[data-form]")];
  let kept = null;
  const choose = (name) => {
    document.body.classList.toggle("chosen", name !== null);
    parts.forEach((part) => part.classList.toggle("on", part.dataset.form === name));
  };
  parts.forEach((part) => {
    part.addEventListener("mouseenter", () => choose(part.dataset.form));
    part.addEventListener("mouseleave", () => choose(kept));
    part.addEventListener("click", () => { kept = kept === part.dataset.form ? null : part.dataset.form; choose(kept); });
  });
})();
