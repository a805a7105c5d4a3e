// The search of a page that was opened from a folder: browsers start no workers there, so the script runs in a hidden frame.
"use strict";
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.loaded = new Promise(resolve => frame.addEventListener("load", resolve, { once: true }));
      this.inner = frame.contentWindow;
      this.inner.document.open();
      this.inner.document.write(
        "<script>var post = parent.postMessage.bind(parent);" +
        "window.postMessage = data => post(data, '*');<\/script>" +
        `<script src="${new URL(url, location)}"><\/script>`);
      this.inner.document.close();
      window.addEventListener("message", event => {
        if (event.source === this.inner) this.dispatchEvent(new MessageEvent("message", { data: event.data }));
      });
    }
    postMessage(data) {
      this.loaded.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.inner.frameElement.remove();
    }
  };
}
