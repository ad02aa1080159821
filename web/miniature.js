// Our workflows for the real model carry what to change to try them with the bundled one: a button on the loader changes it, and changes it back.
import { app } from "../../scripts/app.js";

const LABELS = { en: "Miniature on / off", zh: "微型模型 开 / 关" };
const typed = new WeakMap(); // into which widget for the real model

function edits(graph) {
  const changes = graph.extra?.videocrafter2?.miniature ?? [];
  return changes
    .map(([id, name, small, large]) => {
      const node = graph.getNodeById(id);
      return { node, widget: node?.widgets?.find((widget) => widget.name === name), small, large };
    })
    .filter((edit) => edit.widget);
}

function addButton(node) {
  const locale = app.extensionManager.setting.get("Comfy.Locale") ?? "en";
  const loads = node.widgets.find((widget) => widget.name === "ckpt_name");
  const button = node.addWidget("button", LABELS[locale.slice(0, 2)] ?? LABELS.en, null, () => {
    const isOn = edits(node.graph).some(({ widget, small }) => widget === loads && widget.value === small);
    for (const edit of edits(node.graph)) {
      if (!isOn) typed.set(edit.widget, edit.widget.value);
      const value = isOn ? (typed.get(edit.widget) ?? edit.large) : edit.small;
      const former = edit.widget.value;
      edit.widget.value = value;
      edit.widget.callback?.(value);
      edit.node.onWidgetChanged?.(edit.widget.name, value, former, edit.widget); // a missing model is no longer asked for
    }
    node.graph.setDirtyCanvas(true, true);
  }, { serialize: false });
  button.serialize = false; // else its place among the saved values would be another input's
}

app.registerExtension({
  name: "VideoCrafter2.Miniature",
  afterConfigureGraph() {
    const graph = app.rootGraph ?? app.graph;
    if (!graph.extra?.videocrafter2?.miniature) return;
    graph.nodes.filter((node) => node.comfyClass === "VC2LoadCheckpoint").forEach(addButton);
  },
});
