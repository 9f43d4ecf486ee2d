// Does with each event what a node of mpcium does: decodes it, encodes the part that is signed, and the whole again.
//
// Input, a line each: the operation and the event in hex. Output: the signed part and the whole event in hex, or
// "error". Field names and their order are facts of mpcium's wire; the code is our own.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type authorizer struct {
	ID        string `json:"authorizer_id"`
	Signature []byte `json:"signature"`
}

type keygen struct {
	WalletID    string       `json:"wallet_id"`
	Signature   []byte       `json:"signature"`
	Authorizers []authorizer `json:"authorizer_signatures,omitempty"`
}

type signed struct {
	KeyType  string `json:"key_type"`
	WalletID string `json:"wallet_id"`
	Network  string `json:"network_internal_code"`
	TxID     string `json:"tx_id"`
	Tx       []byte `json:"tx"`
}

type sign struct {
	signed
	Signature   []byte       `json:"signature"`
	Path        []uint32     `json:"derivation_path"`
	Authorizers []authorizer `json:"authorizer_signatures,omitempty"`
}

type reshare struct {
	SessionID   string       `json:"session_id"`
	NodeIDs     []string     `json:"node_ids"`
	Threshold   int          `json:"new_threshold"`
	KeyType     string       `json:"key_type"`
	WalletID    string       `json:"wallet_id"`
	Signature   []byte       `json:"signature,omitempty"`
	Authorizers []authorizer `json:"authorizer_signatures,omitempty"`
}

func encode(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return hex.EncodeToString(data)
}

func answer(operation string, data []byte) (string, string, error) {
	switch operation {
	case "keygen":
		var event keygen
		err := json.Unmarshal(data, &event)
		return hex.EncodeToString([]byte(event.WalletID)), encode(event), err
	case "sign":
		var event sign
		err := json.Unmarshal(data, &event)
		return encode(event.signed), encode(event), err
	default:
		var event reshare
		err := json.Unmarshal(data, &event)
		part := event
		part.Signature, part.Authorizers = nil, nil
		return encode(part), encode(event), err
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		operation, text, _ := strings.Cut(lines.Text(), " ")
		data, err := hex.DecodeString(text)
		if err != nil {
			panic(err)
		}
		part, whole, err := answer(operation, data)
		if err != nil {
			fmt.Fprintln(out, "error")
			continue
		}
		fmt.Fprintln(out, part, whole)
	}
}
