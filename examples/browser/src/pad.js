// A canvas to draw on with mouse, pen or finger.

export function makePad(canvas, changed) {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(pen, { lineWidth: 22, lineCap: "round", lineJoin: "round" });
  let last = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last === null) return;
    const here = place(event);
    pen.beginPath();
    pen.moveTo(...last);
    pen.lineTo(...here);
    pen.stroke();
    last = here;
  });
  canvas.addEventListener("pointerup", () => {
    last = null;
    changed();
  });
  return { clear: () => pen.clearRect(0, 0, canvas.width, canvas.height) };
}
