// Reads one account and one notification of it with @solana/web3.js, and prints what it saw as JSON lines.
import { Connection, PublicKey } from "@solana/web3.js";

const [httpUrl, wsUrl, address] = process.argv.slice(2);
const connection = new Connection(httpUrl, { commitment: "confirmed", wsEndpoint: wsUrl });
const key = new PublicKey(address);

const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const plain = (account, context) => ({
  slot: context.slot,
  owner: account.owner.toBase58(),
  data: account.data.toString("base64"),
});

print({ genesis: await connection.getGenesisHash() });
const { context, value } = await connection.getMultipleAccountsInfoAndContext([key, PublicKey.default]);
print({ ...plain(value[0], context), missing: value[1] === null });
connection.onAccountChange(
  key,
  (account, context) => {
    print(plain(account, context));
    process.exit(0);
  },
  { commitment: "confirmed" },
);
