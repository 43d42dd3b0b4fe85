// Makes feeds.json from feeds.sol: `npm install --no-save solc@0.8.30`, then `node compile.mjs`.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const here = new URL(".", import.meta.url);
const solc = createRequire(process.cwd() + "/")("solc");
const input = {
  language: "Solidity",
  sources: { "feeds.sol": { content: readFileSync(new URL("feeds.sol", here), "utf8") } },
  settings: {
    evmVersion: "paris",
    optimizer: { enabled: true, runs: 200 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
for (const problem of output.errors ?? []) console.error(problem.formattedMessage);
const contracts = {};
for (const [name, made] of Object.entries(output.contracts["feeds.sol"])) {
  contracts[name] = { abi: made.abi, bytecode: "0x" + made.evm.bytecode.object };
}
const artifact = { source: "feeds.sol", compiler: solc.version(), evm_version: "paris", optimizer_runs: 200, contracts };
writeFileSync(new URL("feeds.json", here), JSON.stringify(artifact) + "\n");
