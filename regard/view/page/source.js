// Where the page's questions go: to the app that it came from, or to the notebook that holds its frame. A page that is
// a file has no source and shows what it brought. Answers are read as regard/view/answers.py packs them.

const AGAIN = 400; // milliseconds before a question that met a busy server is asked again

export function sourceOf(served) {
  if (!served) return null;
  return served.via === "frame" ? fromFrame(served) : fromApp(served);
}

function fromApp(served) {
  const token = new URLSearchParams(location.search).get("token") || "";
  async function ask(what, fields) {
    const asked = new URLSearchParams({ trace: served.trace, ...fields });
    const answer = await fetch(`ask/${what}?${asked}`, { headers: { "X-Regard-Token": token } });
    if (answer.status === 429) {
      await new Promise((done) => setTimeout(done, AGAIN));
      return ask(what, fields);
    }
    if (!answer.ok) throw new Error((await answer.json()).error);
    return unpacked(await answer.arrayBuffer());
  }
  const to = (which) => `?${new URLSearchParams({ token, trace: which })}`;
  return { ask, to };
}

// Messages to whoever holds the frame, each with a number that its answer carries.
function fromFrame(served) {
  const waiting = new Map();
  let last = 0;
  window.addEventListener("message", ({ data, source }) => {
    const its = source === window.parent && data && waiting.get(data.regard);
    if (!its) return;
    waiting.delete(data.regard);
    if (data.error) its.failed(new Error(data.error));
    else its.done(unpacked(data.answer));
  });
  const ask = (what, fields) => new Promise((done, failed) => {
    waiting.set(++last, { done, failed });
    window.parent.postMessage({ regard: last, what, fields: { trace: served.trace, ...fields } }, "*");
  });
  return { ask, to: null };
}

// {about, numbers}: the JSON of an answer, and its float32 numbers.
export function unpacked(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  return { about, numbers: new Float32Array(buffer, 4 + size) };
}
