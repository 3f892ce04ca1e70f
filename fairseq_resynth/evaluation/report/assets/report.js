// The table of all utterances: sorted by any column, filtered, a hundred rows at a time.
{
  const { columns, rows } = JSON.parse(document.getElementById("data").textContent);
  const heads = ["utterance", "system", "speaker", ...columns.map((column) => column.label), "notes"];
  const PAGE = 100;
  const head = document.querySelector("#rows thead");
  const body = document.querySelector("#rows tbody");
  const filter = document.getElementById("filter");
  const more = document.getElementById("more");
  let sorted = { index: 0, descending: false };
  let limit = PAGE;

  const isNumber = (index) => index > 2 && index < heads.length - 1;

  function compare(first, second) {
    const [a, b] = [first[sorted.index], second[sorted.index]];
    const empty = (value) => value === null || value === "";
    // Rows without a value stay at the end in either direction.
    if (empty(a) || empty(b)) return empty(a) - empty(b);
    const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return sorted.descending ? -order : order;
  }

  function text(value, index) {
    if (value === null) return "–";
    if (!isNumber(index)) return String(value);
    const { digits, scale } = columns[index - 3];
    return (value * scale).toFixed(digits);
  }

  function draw() {
    const wanted = filter.value.trim().toLowerCase();
    const kept = rows.filter((row) => row.slice(0, 3).join(" ").toLowerCase().includes(wanted));
    kept.sort(compare);
    body.replaceChildren(...kept.slice(0, limit).map((row) => {
      const line = document.createElement("tr");
      row.forEach((value, index) => {
        const cell = line.insertCell();
        cell.textContent = text(value, index);
        if (isNumber(index)) cell.className = "number";
      });
      return line;
    }));
    document.getElementById("shown").textContent = `${Math.min(limit, kept.length)} of ${kept.length} rows`;
    more.hidden = kept.length <= limit;
    head.querySelectorAll("th").forEach((cell, index) => {
      const state = index === sorted.index ? (sorted.descending ? "descending" : "ascending") : "none";
      cell.setAttribute("aria-sort", state);
      cell.querySelector("span").textContent = { ascending: " ▲", descending: " ▼", none: "" }[state];
    });
  }

  const line = head.insertRow();
  heads.forEach((label, index) => {
    const cell = document.createElement("th");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.append(document.createElement("span"));
    button.addEventListener("click", () => {
      sorted = { index, descending: sorted.index === index && !sorted.descending };
      draw();
    });
    cell.append(button);
    cell.scope = "col";
    line.append(cell);
  });
  filter.addEventListener("input", () => { limit = PAGE; draw(); });
  more.addEventListener("click", () => { limit += 10 * PAGE; draw(); });
  draw();
}
