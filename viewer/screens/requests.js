// Asks the page for one thing after the other. While Streamlit is at work it keeps only the newest of what a component
// asks for: whatever is asked before the last was answered could be lost.

const ANSWER_MS = 8000; // after which an answer is no longer waited for: the connection may have been lost

function requestLine() {
  const waiting = [];
  let number = Date.now(); // of the last request; no other line of this page has the same
  let timer = 0;
  let isBusy = false;
  let send = () => {};

  function sendNext() {
    clearTimeout(timer);
    const next = waiting.shift();
    isBusy = next !== undefined;
    if (isBusy) {
      number += 1;
      timer = setTimeout(sendNext, ANSWER_MS);
      send(next.name, { number, value: next.value });
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
