// The notebook's side of the viewer: holds the page in a frame and carries its questions to Python and the answers back.

function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.setAttribute("title", "Attention, drawn by regard");
  frame.style.cssText = `width:100%;height:${model.get("height")}px;border:0`;
  frame.srcdoc = model.get("page");
  const ask = ({ source, data }) => {
    if (source === frame.contentWindow && data && Number.isInteger(data.regard) && data.what) model.send({ regard: data.regard, what: data.what, fields: data.fields });
  };
  const answer = (content, buffers) => {
    if (!content || !Number.isInteger(content.regard) || !frame.contentWindow) return;
    const view = buffers && buffers[0];
    const bytes = view ? new Uint8Array(view.buffer || view, view.byteOffset || 0, view.byteLength).slice().buffer : null;
    frame.contentWindow.postMessage({ ...content, answer: bytes }, "*");
  };
  window.addEventListener("message", ask);
  model.on("msg:custom", answer);
  el.append(frame);
  return () => {
    window.removeEventListener("message", ask);
    model.off("msg:custom", answer);
  };
}

export default { render };
