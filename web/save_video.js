// What the front end does for the stock save nodes by their names, done for ours.
import { app } from "../../scripts/app.js";

const MOVIES = ["mp4", "webm"];

app.registerExtension({
  name: "VideoCrafter2.SaveVideo",
  nodeCreated(node) {
    if (node.comfyClass !== "VC2SaveVideo") return;
    const named = (name) => node.widgets?.find((widget) => widget.name === name);

    // %date:yyyy-MM-dd% and %node.widget%
    const prefix = named("filename_prefix");
    const replaced = window.comfyAPI?.utils?.applyTextReplacements;
    if (prefix && replaced) prefix.serializeValue = () => replaced(app, prefix.value);

    // A node that has shown a clip shows no pictures any more: its player goes on with the old clip.
    const executed = node.onExecuted;
    node.onExecuted = function (...results) {
      executed?.apply(this, results);
      const player = named("video-preview");
      if (!player || MOVIES.includes(named("format")?.value)) return;
      player.onRemove?.();
      node.widgets.splice(node.widgets.indexOf(player), 1);
      delete node.videoContainer; // by which the front end knows such nodes
    };

    // Nodes 2.0 takes what a node with an IMAGE input shows for a picture, and an mp4 then "failed to load". The format
    // decides which player it is.
    Object.defineProperty(node, "previewMediaType", {
      configurable: true,
      enumerable: true,
      get: () => (MOVIES.includes(named("format")?.value) ? "video" : "image"),
      set: () => {}, // the front end guesses from the node's sockets
    });
  },
});
