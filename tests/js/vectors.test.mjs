// The golden vectors, checked with viem and node:crypto: what a JavaScript client or server computes is what
// channelpay computes.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import {
  encodeAbiParameters,
  hashDomain,
  hashStruct,
  hashTypedData,
  keccak256,
  parseAbiParameters,
  recoverTypedDataAddress,
} from "viem";
import { privateKeyToAccount } from "viem/accounts";

const read = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf8"));
const { vouchers, invalid, closeAuthorizations } = read("vouchers");
const wire = read("wire");

const EPOCH_BITS = 32n;
const LANE_WORDS = "address, address, address, bytes32, address";
const MESSAGE_FIELDS = [
  { name: "channelId", type: "bytes32" },
  { name: "cumulativeAmount", type: "uint128" },
];
const DOMAIN_TYPE = [
  { name: "name", type: "string" },
  { name: "version", type: "string" },
  { name: "chainId", type: "uint256" },
  { name: "verifyingContract", type: "address" },
];

function typedData({ chainId, contract, channelId, cumulativeAmount }, primaryType) {
  return {
    domain: { name: "EVM Payment Channel", version: "1", chainId, verifyingContract: contract },
    types: { [primaryType]: MESSAGE_FIELDS },
    primaryType,
    message: { channelId, cumulativeAmount: BigInt(cumulativeAmount) },
  };
}

function hashOfWords(types, { payer, payee, token, authorizedSigner }, salt, ...place) {
  return keccak256(encodeAbiParameters(parseAbiParameters(types), [payer, payee, token, salt, authorizedSigner, ...place]));
}

const decoded = (token) => JSON.parse(Buffer.from(token, "base64url").toString("utf8"));

for (const vector of vouchers) {
  test(`ids: ${vector.description}`, () => {
    const { channel, chainId, contract } = vector;
    const laneSalt = `0x${(BigInt(channel.salt) >> EPOCH_BITS).toString(16).padStart(64, "0")}`;
    const id = hashOfWords(`${LANE_WORDS}, address, uint256`, channel, channel.salt, contract, BigInt(chainId));
    assert.equal(id, vector.channelId);
    assert.equal(hashOfWords(LANE_WORDS, channel, laneSalt), vector.lane);
  });

  test(`domain: ${vector.description}`, () => {
    const { domain } = typedData(vector, "Voucher");
    assert.equal(hashDomain({ domain, types: { EIP712Domain: DOMAIN_TYPE } }), vector.domainSeparator);
  });
}

for (const [kind, vectors] of Object.entries({ Voucher: vouchers, CloseAuthorization: closeAuthorizations })) {
  for (const vector of vectors) {
    test(`hashes of a ${kind}: ${vector.description}`, () => {
      const data = typedData(vector, kind);
      assert.equal(hashStruct({ data: data.message, primaryType: kind, types: data.types }), vector.structHash);
      assert.equal(hashTypedData(data), vector.digest);
    });

    test(`signature of a ${kind}: ${vector.description}`, async () => {
      const data = typedData(vector, kind);
      const signer = await recoverTypedDataAddress({ ...data, signature: vector.signature });
      assert.equal(signer.toLowerCase(), vector.signer);
      assert.equal(await privateKeyToAccount(vector.privateKey).signTypedData(data), vector.signature);
    });
  }
}

for (const vector of invalid.filter(({ code }) => code === "signer-mismatch")) {
  test(`mismatch: ${vector.description}`, async () => {
    const signer = await recoverTypedDataAddress({ ...typedData(vector, "Voucher"), signature: vector.signature });
    assert.notEqual(signer.toLowerCase(), vector.signer);
  });
}

for (const { description, header, challenge, request } of wire.challenges) {
  test(`challenge: ${description}`, () => {
    const parameters = [...header.matchAll(/([a-z]+)="([^"]*)"/g)].map(([, name, value]) => [name, value]);
    assert.ok(header.startsWith("Payment "));
    assert.deepEqual(Object.fromEntries(parameters), challenge);
    assert.deepEqual(decoded(challenge.request), request);
  });

  test(`challenge id: ${description}`, () => {
    const { realm, method, intent, expires, digest = "", opaque = "" } = challenge;
    const slots = [realm, method, intent, challenge.request, expires, digest, opaque];
    const secret = Buffer.from(wire.secret.slice(2), "hex");
    assert.equal(realm, wire.realm);
    assert.equal(createHmac("sha256", secret).update(slots.join("|")).digest("base64url"), challenge.id);
  });
}

for (const { description, header, members } of wire.credentials) {
  test(`credential: ${description}`, () => {
    assert.ok(header.startsWith("Payment "));
    assert.deepEqual(decoded(header.slice("Payment ".length)), members);
  });
}

for (const { description, header, members } of wire.receipts) {
  test(`receipt: ${description}`, () => {
    assert.deepEqual(decoded(header), members);
  });
}
