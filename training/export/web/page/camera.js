// One photograph by the device's camera.

/**
 * Shows what the camera sees until a photograph is taken or the camera is closed.
 *
 * @param {{box: HTMLElement, video: HTMLVideoElement, take: HTMLButtonElement, close: HTMLButtonElement}} elements
 * @returns {Promise<?Blob>} a PNG file, or null where the camera was closed.
 * @throws {Error} with a sentence for the page, where there is no camera or it is not allowed.
 */
export async function photograph({ box, video, take, close }) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("Expected an address of https or localhost for the camera; Received: another, or no camera.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: { ideal: "environment" } } });
  } catch (error) {
    throw new Error(`Expected a camera that this page may use; Received: ${error.message || error.name}.`);
  }
  try {
    video.srcObject = stream;
    // From before the buttons show, so that no click is lost while the camera starts.
    const isTaken = Promise.race([clicked(take).then(() => true), clicked(close).then(() => false)]);
    box.hidden = false;
    take.focus();
    await Promise.race([video.play(), clicked(close)]);
    return (await isTaken) ? await frameOf(video) : null;
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    box.hidden = true;
  }
}

function clicked(button) {
  return new Promise((resolve) => button.addEventListener("click", resolve, { once: true }));
}

function frameOf(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  return canvas.convertToBlob();
}
