#!/bin/sh
# A service's first wallet and first signature with the plain `nats` command line and `jq`.
#
# Reads NATS_URL, ALICE_USER and ALICE_PASSWORD, as `initiator dev --env-file` writes them.
set -eu

me=$ALICE_USER
ask() { nats --server "$NATS_URL" --user "$me" --password "$ALICE_PASSWORD" --timeout 5s request --raw "$@"; }

# submit OP ID FIELDS: the answer is JetStream's receipt, or why the queue does not take it
submit() {
  receipt=$(ask "initiator.request.$me.$1" "$3" --header Content-Type:application/json)
  seq=$(printf '%s' "$receipt" | jq -er '.seq') || { echo "refused at the door: $receipt" >&2; exit 1; }
  while :; do
    # asked for instead of listened to: a shell has nothing better to do
    status=$(ask "initiator.query.$me.status" "{\"op\":\"$1\",\"id\":\"$2\",\"request_seq\":$seq}")
    refused=$(printf '%s' "$status" | jq -r '.rejection // empty | "\(.code): \(.field): \(.reason)"')
    [ -z "$refused" ] || { echo "rejected, $refused" >&2; exit 3; }
    case $(printf '%s' "$status" | jq -r '.event.state // "queued"') in
      completed) printf '%s' "$status" | jq -c '.event.result'; return ;;
      failed) printf '%s' "$status" | jq -r '"failed, outcome \(.event.outcome): \(.event.code): \(.event.reason)"' >&2; exit 4 ;;
    esac
    sleep 0.2
  done
}

wallet=w_$(date +%s)$$
echo "keygen $wallet"
submit keygen "$wallet" "{\"wallet_id\":\"$wallet\"}" | jq -r '"  ed25519 public key \(.eddsa_pub_key)"'

tx_id=tx_$(date +%s)$$
tx=$(printf 'pay 5 to Bob' | base64)
echo "sign $tx_id"
submit sign "$tx_id" "{\"key_type\":\"ed25519\",\"wallet_id\":\"$wallet\",\"network_internal_code\":\"solana\",\"tx_id\":\"$tx_id\",\"tx\":\"$tx\"}" \
  | jq -r '"  signature \(.signature)"'
