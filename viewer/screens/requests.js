// Asks the page for one thing after the other. While Streamlit is at work it keeps only the newest of what a component
// asks for: whatever is asked before the last was answered could be lost. What was asked for while the connection was
// lost is asked for again, by the same number: the page does nothing twice.

const ANSWER_MS = 8000; // after which an answer is no longer waited for
const RETURN_MS = 400; // after which what a returned connection has not brought is asked for again

const CONNECTION = "data-test-connection-state";
const streamlitApp = () => document.querySelector(`[${CONNECTION}]`) ?? document.body;
const isConnected = () => streamlitApp().getAttribute(CONNECTION) === "CONNECTED";

// `isAlive` says whether the component still stands on the page: one that was replaced asks for nothing more.
function requestLine(isAlive) {
  const waiting = [];
  let number = Date.now(); // of the last request; no other line of this page has the same
  let timer = 0;
  let isBusy = false;
  let send = () => {};
  let again = () => {}; // sends the last request once more

  const connection = new MutationObserver(() => {
    const asked = number;
    setTimeout(() => isBusy && asked === number && isAlive() && isConnected() && again(), RETURN_MS);
  });

  function sendNext() {
    clearTimeout(timer);
    connection.disconnect();
    const next = isAlive() ? waiting.shift() : undefined;
    isBusy = next !== undefined;
    if (isBusy) {
      number += 1;
      const request = { number, value: next.value };
      again = () => send(next.name, request);
      timer = setTimeout(sendNext, ANSWER_MS);
      connection.observe(streamlitApp(), { attributeFilter: [CONNECTION] });
      again();
    }
  }

  function ask(name, value) {
    waiting.push({ name, value });
    if (!isBusy) {
      sendNext();
    }
  }

  // Takes the number of the request that the page has answered last, and how to send.
  function take(answered, sender) {
    send = sender;
    if (isBusy && answered === number) {
      sendNext();
    }
  }

  return { ask, take, isBusy: () => isBusy };
}
