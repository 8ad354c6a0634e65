// Asks the page for one thing after the other. While Streamlit is at work it keeps only the newest of what a component
// asks for: whatever is asked before the last was answered could be lost. What was asked for while the connection was
// lost is asked for again, by the same number: the page does nothing twice.

const ANSWER_MS = 8000; // after which a request that nobody is at work on is taken for lost
const RETURN_MS = 400; // after which what a returned connection has not brought is asked for again

// Asked for twice, these lead twice as far. All else means the board that is seen: the same again, before another board
// is there, would undo it or mean something else.
const RELATIVE = /^(turn|zoom|pan|token|refill):/;

const [CONNECTION, SCRIPT] = ["data-test-connection-state", "data-test-script-state"];
const streamlitApp = () => document.querySelector(`[${CONNECTION}]`) ?? document.body;
const isConnected = () => streamlitApp().getAttribute(CONNECTION) === "CONNECTED";
const isAtWork = () => ["running", "rerunRequested"].includes(streamlitApp().getAttribute(SCRIPT));

// `isAlive` says whether the component still stands on the page: one that was replaced asks for nothing more.
function requestLine(isAlive) {
  const waiting = [];
  let number = Date.now(); // of the last request; no other line of this page has the same
  let timer = 0;
  let current = null; // what was sent, until it is answered or lost
  let send = () => {};
  let again = () => {}; // sends it once more

  const connection = new MutationObserver(() => {
    const asked = number;
    setTimeout(() => current && asked === number && isAlive() && isConnected() && again(), RETURN_MS);
  });

  function sendNext() {
    clearTimeout(timer);
    connection.disconnect();
    current = (isAlive() && waiting.shift()) || null;
    if (current) {
      number += 1;
      const { name, value } = current;
      const request = { number, value };
      again = () => send(name, request);
      timer = setTimeout(loseUnlessAtWork, ANSWER_MS);
      connection.observe(streamlitApp(), { attributeFilter: [CONNECTION] });
      again();
    }
  }

  // Who is at work may still answer, and what a lost connection did not bring is asked for again.
  function loseUnlessAtWork() {
    if (isAlive() && (isAtWork() || !isConnected())) {
      timer = setTimeout(loseUnlessAtWork, ANSWER_MS);
    } else {
      settle(false);
    }
  }

  function settle(isAnswered) {
    const { settled } = current;
    current = null;
    settled.forEach((tell) => tell(isAnswered));
    if (!current) {
      sendNext();
    }
  }

  // `settled` is told whether the page has answered: false where the request was lost. Of nodes that were selected one
  // after the other only the newest is asked for.
  function ask(name, value, settled = () => {}) {
    const before = waiting.at(-1) ?? current;
    if (name === "done" && !RELATIVE.test(value) && before?.name === name && before.value === value) {
      before.settled.push(settled);
      return;
    }
    const older = name === "picked" ? waiting.findIndex((other) => other.name === name) : -1;
    if (older >= 0) {
      waiting.splice(older, 1);
    }
    waiting.push({ name, value, settled: [settled] });
    if (!current) {
      sendNext();
    }
  }

  // Takes the number of the request that the page has answered last, and how to send.
  function take(answered, sender) {
    send = sender;
    if (current && answered === number) {
      settle(true);
    }
  }

  const isAsked = (name) => [current, ...waiting].some((request) => request?.name === name);

  return { ask, take, isAsked, isBusy: () => current !== null };
}
