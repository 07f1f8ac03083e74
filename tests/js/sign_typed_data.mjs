// Signs EIP-712 messages with viem, as a wallet would. In: a JSON list of {privateKey, domain, types, primaryType,
// message} on stdin, integers as decimal strings. Out: a JSON list of the signatures.

import { readFileSync } from "node:fs";

import { privateKeyToAccount } from "viem/accounts";

const requests = JSON.parse(readFileSync(0, "utf8"));

function withIntegers(types, typeName, message) {
  const read = ({ name, type }) => {
    if (type in types) return [name, withIntegers(types, type, message[name])];
    return [name, type.startsWith("uint") ? BigInt(message[name]) : message[name]];
  };
  return Object.fromEntries(types[typeName].map(read));
}

const sign = ({ privateKey, domain, types, primaryType, message }) =>
  privateKeyToAccount(privateKey).signTypedData({
    domain,
    types,
    primaryType,
    message: withIntegers(types, primaryType, message),
  });

process.stdout.write(JSON.stringify(await Promise.all(requests.map(sign))));
