// Leads from step to step. Keys are counted here and only the newest step is asked for, so that a held key loses none,
// however slow the page is; and the boards on the way are asked for ahead, so that most steps are shown at once. Knows
// no markup.

const MOST_BOARDS = 32;

function walker({ show, ask, last, build, isAlive = () => true }) {
  const boards = new Map(); // step -> its board, of this scene
  const tried = new Set(); // steps that were asked for ahead
  let turn = null; // whose steps they are
  let scene = null; // whatever boards depend on besides their step
  let confirmed = null; // the step where the page is
  let aim = null; // the step that keys have led to, while the page is not there yet
  let asked = null; // the step that was asked for last, until it is confirmed
  let question = 0; // the number of that request
  let isAnswered = false; // whatever the page says next answers that
  let early = null; // the step that is shown although the page is not there yet
  let earlyWhenAsked = null; // what that was when a step was last asked for: the answer is newer than it
  let direction = 1;
  let timer = 0;
  let idle = 0;

  function keep(step, board) {
    boards.delete(step);
    boards.set(step, board);
    if (boards.size > MOST_BOARDS) {
      boards.delete(boards.keys().next().value);
    }
  }

  // The elements of a board that was kept, once: what is shown changes.
  function takeElements(step) {
    const board = boards.get(step);
    const elements = board?.elements;
    if (board) {
      board.elements = null;
    }
    return elements;
  }

  // Elements of the steps that may come next are made while the page is at rest. Safari has no idle callbacks.
  const [whenIdle, notWhenIdle] = window.requestIdleCallback
    ? [window.requestIdleCallback.bind(window), window.cancelIdleCallback.bind(window)]
    : [setTimeout, clearTimeout];

  function buildAhead() {
    notWhenIdle(idle);
    idle = whenIdle(() => { // each by itself, so that a key that is pressed meanwhile waits for one at most
      const next = [direction, 2 * direction, -direction].map((by) => boards.get((aim ?? confirmed) + by));
      const missing = next.find((board) => board !== undefined && !board.elements);
      if (missing) {
        missing.elements = build(missing);
        buildAhead();
      }
    });
  }

  function request(step) {
    const ahead = [step + direction, step + 2 * direction];
    const missing = ahead.filter((at) => at >= 0 && at <= last() && !boards.has(at) && !tried.has(at));
    missing.forEach((at) => tried.add(at));
    return { text: `shown:${[step, ...missing].join(".")}`, isUseful: missing.length > 0 };
  }

  function askForAim() {
    if (asked === null && aim !== null && aim !== confirmed && isAlive()) {
      [asked, isAnswered, earlyWhenAsked] = [aim, false, early];
      question += 1;
      ask(boards.has(aim) ? request(aim).text : `step:${aim}`, settled(question));
    }
  }

  // What follows where a question is answered, or was lost; one from another turn is nothing to this one.
  const settled = (number) => (wasAnswered) => {
    const isNewest = asked !== null && number === question;
    if (isNewest && wasAnswered) {
      isAnswered = true;
    } else if (isNewest) {
      asked = null;
      askForAim();
    }
  };

  function aimAt(step) {
    direction = step < (aim ?? confirmed) ? -1 : 1;
    aim = step;
    if (boards.has(step)) {
      early = step;
      show(step, boards.get(step));
      requestAnimationFrame(() => setTimeout(askForAim)); // to ask takes time, for which the picture need not wait
    } else {
      askForAim();
    }
    if (asked === null && aim === confirmed) {
      [aim, early] = [null, null]; // the page is there already, and nothing is to be waited for
    }
    buildAhead();
  }

  function lookAhead() {
    const { text, isUseful } = asked === null && confirmed !== null ? request(confirmed) : {};
    if (isUseful) {
      ask(text);
    }
  }

  // A board that is not here any more is asked for until it comes, or keys or another turn have led on.
  function askWhole(step, ofTurn, after) {
    if (turn === ofTurn && question === after && isAlive()) {
      ask(`step:${step}`, (wasAnswered) => wasAnswered || askWhole(step, ofTurn, after));
    }
  }

  // Takes what the page says. Whether it is to be shown: not where keys have led further meanwhile.
  function take(data) {
    if (data.turn !== turn) {
      [turn, aim, asked] = [data.turn, null, null];
    }
    if (data.scene !== scene) {
      boards.clear();
      tried.clear();
      [scene, early] = [data.scene, null]; // what was asked for will still be answered
      aim = aim > last() ? null : aim; // recorded again, a turn may be shorter
    }
    for (const [step, board] of Object.entries(data.ahead ?? {})) {
      keep(Number(step), board);
    }
    buildAhead();
    if (data.html === null && !boards.has(data.now)) {
      askWhole(data.now, turn, question);
      return false;
    }
    if (data.html === null) {
      Object.assign(data, boards.get(data.now));
    } else if (data.now !== null) {
      keep(data.now, { html: data.html, notes: data.notes, raw: data.raw });
    }
    confirmed = data.now;
    if (asked === null || confirmed === asked || confirmed === null || isAnswered) {
      early = early === earlyWhenAsked ? null : early;
      const isThere = aim === confirmed || confirmed === null || (isAnswered && aim === asked); // as near as can be
      [asked, isAnswered] = [null, false];
      aim = isThere ? null : aim;
      askForAim();
    }
    if (asked === null) {
      early = null;
    }
    if (asked === null && data.ahead !== undefined) {
      clearTimeout(timer);
      timer = setTimeout(lookAhead, 40);
    }
    return early === null || early === confirmed;
  }

  return {
    take,
    takeElements,
    aimAt,
    from: () => aim ?? confirmed,
    isWaiting: () => aim !== null || asked !== null,
    led: () => ({ turn, step: aim }), // where keys have led that the page has not reached; null where it has
  };
}
