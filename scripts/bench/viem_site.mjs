// The same small page behind viem's check of a voucher, without any store. It is told what to do in
// lines of JSON on standard input and answers likewise.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { verifyTypedData } from "viem/utils";

const BODY = "<p>An article.</p>";
const { domain, voucher } = JSON.parse(process.argv[2]);
const types = {
  Voucher: [
    { name: "channelId", type: "bytes32" },
    { name: "cumulativeAmount", type: "uint128" },
  ],
};

function isSigned({ payer, channelId, cumulativeAmount, signature }) {
  const message = { channelId, cumulativeAmount: BigInt(cumulativeAmount) };
  return verifyTypedData({
    address: payer, domain, types, primaryType: "Voucher", message, signature,
  });
}

async function answer(request, response) {
  const token = (request.headers.authorization ?? "").replace(/^Payment /, "");
  const { payload, source } = JSON.parse(Buffer.from(token, "base64url").toString());
  const isPaid = await isSigned({ ...payload, payer: source.split(":").pop() });
  response.writeHead(isPaid ? 200 : 402, {
    "Content-Type": "text/html",
    "Content-Length": BODY.length,
    "Payment-Receipt": "none",
  });
  response.end(BODY);
}

async function secondsPerCall(seconds) {
  let calls = 0;
  let elapsed = 0;
  const started = process.cpuUsage();
  do {
    if (!(await isSigned(voucher))) throw new Error("not signed");
    calls += 1;
    const { user, system } = process.cpuUsage(started);
    elapsed = (user + system) / 1e6;
  } while (elapsed < seconds);
  return elapsed / calls;
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    response.writeHead(500, { "Content-Length": 0 }).end();
    process.stderr.write(`${error}\n`);
  });
});
server.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify(["127.0.0.1", server.address().port]));
});
const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => console.log(await secondsPerCall(JSON.parse(line).verify)));
lines.on("close", () => process.exit(0));
