// Front ends before 1.41 have an early trial of app mode: it opens on the same mark, knows nothing of the inputs that a workflow chose, and hides its graph.
import { app } from "../../scripts/app.js";

const [major, minor] = (window.__COMFYUI_FRONTEND_VERSION__ ?? "0.0").split(".").map(Number);

app.registerExtension({
  name: "VideoCrafter2.AppMode",
  beforeConfigureGraph(workflow) {
    if ((major || 0) > 1 || (minor || 0) >= 41) return;
    if (workflow.extra?.linearData) delete workflow.extra.linearMode;
  },
});
