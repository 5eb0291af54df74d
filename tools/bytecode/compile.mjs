// node compile.mjs FOLDER: writes bytecode of Lambda's Python beside the sources in FOLDER.
//
// Bytecode depends on Python's version and not on the machine, so CPython's build for WebAssembly compiles for Lambda.
// Unchecked hashes, because Lambda sets its own file times; /opt/python is where a layer's packages are there.
import process from "node:process";
import { loadPyodide } from "pyodide";

const python = await loadPyodide();
python.mountNodeFS("/layer", process.argv[2]);
const isCompiled = python.runPython(`
import compileall, py_compile
compileall.compile_dir(
    "/layer", maxlevels=50, ddir="/opt/python", quiet=1,
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
`);
process.exit(isCompiled ? 0 : 1);
