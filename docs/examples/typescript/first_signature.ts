// A service's first wallet and first signature in TypeScript, with nothing but NATS.
//
// Reads NATS_URL, ALICE_USER and ALICE_PASSWORD, as `initiator dev --env-file` writes them.

import { createPublicKey, randomBytes, verify } from "node:crypto";
import { connect, headers, type NatsConnection, type Subscription } from "@nats-io/transport-node";

// What the daemon says of an operation. Fields that this program does not know are ignored, as they must be.
interface Event {
  op: string;
  id: string | null;
  state: string;
  request_seq: number;
  code?: string;
  field?: string | null;
  reason?: string;
  outcome?: string;
  result?: Record<string, string>;
}

// One client of the daemon. It listens before it asks, so that no event is missed.
class Service {
  private readonly events: AsyncIterator<{ json<T>(): T }>;
  private waiting?: Promise<IteratorResult<{ json<T>(): T }>>;

  constructor(private readonly name: string, private readonly connection: NatsConnection) {
    const subscription: Subscription = connection.subscribe(`initiator.out.${name}.>`);
    this.events = subscription[Symbol.asyncIterator]();
  }

  // Submits one request and follows it to its end.
  async ask(op: string, id: string, request: object): Promise<Record<string, string>> {
    const options = { timeout: 5000, headers: headers() };
    options.headers.set("Content-Type", "application/json");
    // a timeout here is no refusal: the same request again joins the operation, if there is one
    const answer = await this.connection.request(`initiator.request.${this.name}.${op}`, JSON.stringify(request), options);
    const receipt = answer.json<{ seq: number; error?: { description: string } }>();
    if (receipt.error) throw new Error(`refused at the door: ${receipt.error.description}`);
    process.stdout.write(`${op} ${id}: queued`);
    for (;;) {
      const event = await this.next(op, id);
      if (event?.state === "rejected" && event.op === op && event.request_seq === receipt.seq) {
        throw new Error(`rejected, ${event.code}: ${event.field}: ${event.reason}`);
      }
      if (!event || event.op !== op || event.id !== id) continue;
      if (event.state === "failed") throw new Error(`failed, outcome ${event.outcome}: ${event.code}: ${event.reason}`);
      process.stdout.write(` ${event.state}${event.state === "completed" ? "\n" : ""}`);
      if (event.state === "completed" && event.result) return event.result;
    }
  }

  // The next event; where none comes for a while, the state of the operation, asked for: events are told once.
  private async next(op: string, id: string): Promise<Event | null> {
    this.waiting ??= this.events.next();
    const silence = new Promise<null>((resolve) => setTimeout(resolve, 5000, null).unref());
    const message = await Promise.race([this.waiting, silence]);
    if (message) {
      this.waiting = undefined;
      if (message.done) throw new Error("the connection is closed");
      return message.value.json<Event>();
    }
    const question = JSON.stringify({ op, id });
    const answer = await this.connection.request(`initiator.query.${this.name}.status`, question, { timeout: 5000 });
    return answer.json<{ event: Event | null }>().event;
  }
}

const newId = (prefix: string): string => `${prefix}_${randomBytes(4).toString("hex")}`;

async function main(): Promise<void> {
  const name = process.env.ALICE_USER ?? "";
  const connection = await connect({ servers: process.env.NATS_URL, user: name, pass: process.env.ALICE_PASSWORD });
  try {
    const service = new Service(name, connection);

    const wallet = newId("w");
    const keys = await service.ask("keygen", wallet, { wallet_id: wallet });
    const publicKey = Buffer.from(keys.eddsa_pub_key, "base64");
    console.log("  ed25519 public key", publicKey.toString("hex"));

    const txId = newId("tx");
    const tx = Buffer.from("pay 5 to Bob");
    const signed = await service.ask("sign", txId, {
      key_type: "ed25519",
      wallet_id: wallet,
      network_internal_code: "solana",
      tx_id: txId,
      tx: tx.toString("base64"),
    });
    const signature = Buffer.from(signed.signature, "base64");
    const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: publicKey.toString("base64url") }, format: "jwk" });
    if (!verify(null, tx, key, signature)) throw new Error("the signature does not verify: do not use it");
    console.log("  signature", signature.toString("hex"), "verified");
  } finally {
    await connection.close();
  }
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exit(1);
});
