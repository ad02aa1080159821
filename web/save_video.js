// Nodes 2.0 takes what a node with an IMAGE input shows for a picture, and an mp4 then "failed to load". The format decides which player it is.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "VideoCrafter2.SaveVideo",
  nodeCreated(node) {
    if (node.comfyClass !== "VC2SaveVideo") return;
    const format = node.widgets?.find((widget) => widget.name === "format");
    Object.defineProperty(node, "previewMediaType", {
      configurable: true,
      enumerable: true,
      get: () => (["mp4", "webm"].includes(format?.value) ? "video" : "image"),
      set: () => {}, // the front end guesses from the node's sockets
    });
  },
});
