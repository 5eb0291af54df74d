// The reference of the API: Swagger UI on the document beside this page. It asks no other host.
import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";
import "./docs.css";
import { apiKey } from "./session";

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const key = apiKey();
const shown = SwaggerUI({
  url: "openapi.json",
  dom_id: "#reference",
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  validatorUrl: null,
  syntaxHighlight: false, // its colours are too pale
  onComplete: () => {
    // Signed in to the console in this tab: "try it" has its key.
    if (key) shown.preauthorizeApiKey("apiKey", key);
  },
});
