import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { App } from "./app";
import { takeKeyFromAddress } from "./session";

takeKeyFromAddress();
render(<App />, document.getElementById("app")!);
