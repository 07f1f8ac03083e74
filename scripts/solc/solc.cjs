#!/usr/bin/env node
// The compiler's command line as far as py-solc-x, Ape and forge use it, over the WebAssembly build of
// solc. It stands in where the native build cannot be downloaded; both give the same bytecode.
"use strict";

const fs = require("node:fs");
const solc = require("solc");

function main(options) {
  if (options.includes("--version")) {
    process.stdout.write(
      `solc, the solidity compiler commandline interface\nVersion: ${solc.version()}\n`,
    );
    return 0;
  }
  if (options.includes("--standard-json")) {
    process.stdout.write(solc.compile(fs.readFileSync(0, "utf8")));
    return 0;
  }
  process.stderr.write("solc.cjs answers --version and --standard-json only\n");
  return 1;
}

process.exitCode = main(process.argv.slice(2));
