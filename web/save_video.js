// What the front end does for the stock save nodes by their names, done for ours.
import { app } from "../../scripts/app.js";

const MOVIES = ["mp4", "webm"];
// The front end's own widgets.
const PLAYERS = ["video-preview"];
const PICTURES = ["$$canvas-image-preview", "$$comfy_animation_preview"];

app.registerExtension({
  name: "VideoCrafter2.SaveVideo",
  nodeCreated(node) {
    if (node.comfyClass !== "VC2SaveVideo") return;
    const named = (name) => node.widgets?.find((widget) => widget.name === name);

    // %date:yyyy-MM-dd% and %node.widget%
    const prefix = named("filename_prefix");
    const replaced = window.comfyAPI?.utils?.applyTextReplacements;
    if (prefix && replaced) prefix.serializeValue = () => replaced(app, prefix.value);

    // What the node has shown is what it goes on to show: an old clip beside new pictures, or the reverse.
    const executed = node.onExecuted;
    node.onExecuted = function (...results) {
      executed?.apply(this, results);
      const isMovie = MOVIES.includes(named("format")?.value);
      for (const name of isMovie ? PICTURES : PLAYERS) {
        const preview = named(name);
        if (!preview) continue;
        preview.onRemove?.();
        node.widgets.splice(node.widgets.indexOf(preview), 1);
      }
      delete node[isMovie ? "imgs" : "videoContainer"];
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
