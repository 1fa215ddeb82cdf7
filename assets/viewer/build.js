// Makes one script and one style sheet of the viewer and everything that it needs: `node viewer/build.js DIRECTORY`.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const into = path.resolve(process.argv[2]);
const ndarray = path.join(here, "ndarray.js");

const made = await build({
  entryPoints: [path.join(here, "viewer.js")],
  outfile: path.join(into, "viewer.js"),
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  alias: { ndarray, "ndarray-ops": ndarray },
  define: { "process.env.NODE_ENV": '"production"' },
  legalComments: "none", // all licences are in a file of their own, whole
  metafile: true,
  logLevel: "warning",
});

const packages = new Set();
for (const input of Object.keys(made.metafile.inputs)) {
  const [found] = input.match(/^.*node_modules\/(@[^/]+\/)?[^/]+/) ?? [];
  if (found) packages.add(found);
}
const texts = [...packages].sort().map((directory) => {
  const { name, version, license } = JSON.parse(readFileSync(path.join(directory, "package.json"), "utf8"));
  const file = readdirSync(directory).find((one) => /^licen[cs]e/i.test(one));
  return `${name} ${version} (${license})\n\n${file ? readFileSync(path.join(directory, file), "utf8") : ""}`;
});
writeFileSync(path.join(into, "viewer.LICENSES"), texts.join(`\n${"-".repeat(80)}\n`));
