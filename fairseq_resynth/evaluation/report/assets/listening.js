// Takes one listener through a test, in a random order; a reload of the page keeps the answers.
{
  const test = JSON.parse(document.getElementById("test").textContent);
  const place = document.getElementById("trial");
  const next = document.getElementById("next");
  const store = "listening-test " + test.test;
  const player = new Audio();
  place.tabIndex = -1;
  let keys = {};
  let heard = new Set();
  let ready = () => false;
  let read = () => [];

  const shuffled = (items) => {
    const left = [...items];
    return items.map(() => left.splice(Math.floor(Math.random() * left.length), 1)[0]);
  };

  const fresh = () => ({
    test: test.test,
    kind: test.kind,
    session: Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join(""),
    listener: "",
    started: new Date().toISOString(),
    order: shuffled(test.trials.map((_, index) => index)),
    done: 0,
    answers: [],
  });
  const state = JSON.parse(localStorage.getItem(store) || "null") || fresh();
  const save = () => localStorage.setItem(store, JSON.stringify(state));

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  const update = () => { next.disabled = !ready(); };

  function playButton(label, stimulus, key) {
    const button = element("button", { type: "button", textContent: "▶ " + label });
    const play = () => {
      player.src = `audio/${stimulus}.wav`;
      player.onended = () => { heard.add(button); button.classList.add("played"); update(); };
      player.play();
    };
    button.addEventListener("click", play);
    keys[key] = play;
    return button;
  }

  function choiceButtons(labels) {
    let chosen = null;
    const buttons = labels.map((label, index) => {
      const button = element("button", { type: "button", textContent: label });
      const choose = () => {
        chosen = index;
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        update();
      };
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", choose);
      keys[String(index + 1)] = choose;
      return button;
    });
    return { row: element("div", { className: "choices" }, ...buttons), chosen: () => chosen };
  }

  const draw = {
    mos(trial) {
      const [stimulus] = trial.stimuli;
      const button = playButton("Play (Space)", stimulus, " ");
      const choice = choiceButtons(["1 bad", "2 poor", "3 fair", "4 good", "5 excellent"]);
      place.replaceChildren(button, choice.row);
      ready = () => heard.size === 1 && choice.chosen() !== null;
      read = () => [{ stimulus, value: choice.chosen() + 1 }];
    },
    mushra(trial) {
      const reference = playButton("Reference (R)", trial.reference, "r");
      const moved = new Set();
      const sliders = shuffled(trial.stimuli).map((stimulus, index) => {
        const letter = String.fromCharCode(65 + index);
        const shown = element("output", { textContent: "–" });
        const range = element("input", { type: "range", min: 0, max: 100, value: 50 });
        range.setAttribute("aria-label", `rating of ${letter}`);
        range.addEventListener("input", () => { moved.add(stimulus); shown.textContent = range.value; update(); });
        const row = element("div", { className: "slider" }, playButton(letter, stimulus, letter.toLowerCase()), range, shown);
        return { stimulus, range, row };
      });
      place.replaceChildren(reference, ...sliders.map((slider) => slider.row));
      ready = () => heard.size === sliders.length + 1 && moved.size === sliders.length;
      read = () => sliders.map(({ stimulus, range }) => ({ stimulus, value: Number(range.value) }));
    },
    abx(trial) {
      const [a, b] = shuffled(trial.stimuli);
      const x = Math.random() < 0.5 ? a : b;
      const choice = choiceButtons(["1: X is A", "2: X is B"]);
      const buttons = [["A", a], ["B", b], ["X", x]].map(([name, stimulus]) => playButton(name, stimulus, name.toLowerCase()));
      place.replaceChildren(element("div", { className: "choices" }, ...buttons), choice.row);
      ready = () => heard.size === 3 && choice.chosen() !== null;
      read = () => [{ stimulus: x, value: Number([a, b][choice.chosen()] === x) }];
    },
  };

  function finish() {
    place.textContent = "Thank you: all done. Please download the results and send them back.";
    next.hidden = true;
    keys = {};
    const link = document.getElementById("download");
    const content = new Blob([JSON.stringify(state, null, 1)], { type: "application/json" });
    link.href = URL.createObjectURL(content);
    link.download = `${test.kind}-${state.session.slice(0, 8)}.json`;
    link.hidden = false;
    link.focus();
  }

  function show() {
    player.pause();
    document.getElementById("progress").textContent = `${state.done} of ${state.order.length} done`;
    if (state.done === state.order.length) return finish();
    keys = {};
    heard = new Set();
    draw[test.kind](test.trials[state.order[state.done]]);
    update();
    if (state.done) place.focus(); // not left on Next, where Space would press it
  }

  next.addEventListener("click", () => {
    const trial = state.order[state.done];
    state.answers.push(...read().map((answer) => ({ trial, ...answer })));
    state.done += 1;
    save();
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id === "listener" || event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target.tagName === "BUTTON";
    if (event.key === "Enter" && event.target.tagName !== "A" && !(onButton && next.disabled)) {
      event.preventDefault();
      if (!next.disabled) next.click();
    }
    if (event.key === " " && onButton) return; // presses that button
    const action = keys[event.key.toLowerCase()];
    if (action) { event.preventDefault(); action(); }
  });
  const listener = document.getElementById("listener");
  listener.value = state.listener;
  listener.addEventListener("input", () => {
    state.listener = listener.value;
    save();
    if (state.done === state.order.length) finish();
  });
  show();
}
