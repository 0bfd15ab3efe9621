/** The camera: pixels of what it sees, a few times a second. */

import { onWhite } from "./pictures.js";

const PAUSE = 200; // milliseconds

export class Camera {
  #stream = null;

  constructor(video, onPixels) {
    this.video = video;
    this.onPixels = onPixels;
  }

  /** Ask for the camera and begin. An error says, in a sentence, why there is none. */
  async start() {
    if (!navigator.mediaDevices) {
      throw new Error("A browser lends its camera only to pages from https or from this machine.");
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      const refused = error.name === "NotAllowedError";
      throw new Error(
        refused
          ? "The camera was not allowed. You can allow it in the browser’s settings for this page."
          : "No camera was found that is free.",
      );
    }
    this.stop(); // one that was started meanwhile
    this.#stream = stream;
    this.video.srcObject = stream;
    await this.video.play();
    this.#look(stream);
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = this.video.srcObject = null;
  }

  async #look(stream) {
    while (stream === this.#stream) {
      const { videoWidth: width, videoHeight: height } = this.video;
      if (width) await this.onPixels(onWhite(this.video, width, height));
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}
