// Our workflows carry their titles and notes in other languages; one opened in such a language has them in it.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "VideoCrafter2.Translate",
  beforeConfigureGraph(workflow) {
    const languages = workflow.extra?.videocrafter2?.languages ?? {};
    const words = languages[(app.extensionManager.setting.get("Comfy.Locale") ?? "en").slice(0, 2)];
    if (!words) return;
    for (const node of workflow.nodes) {
      node.title = words.titles[node.id] ?? node.title;
      if (node.type === "MarkdownNote") node.widgets_values = [words.note];
    }
    for (const group of workflow.groups) group.title = words.groups[group.id] ?? group.title;
    delete workflow.extra.videocrafter2.languages; // what is edited and saved from now on is the user's
  },
});
