// A service's first wallet and first signature in Go, with nothing but NATS.
//
// Reads NATS_URL, ALICE_USER and ALICE_PASSWORD, as `initiator dev --env-file` writes them.
package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

// Event is what the daemon says of an operation. Fields that this program does not know are ignored, as they must be.
type Event struct {
	Op         string          `json:"op"`
	ID         string          `json:"id"`
	State      string          `json:"state"`
	RequestSeq uint64          `json:"request_seq"`
	Code       string          `json:"code"`
	Field      string          `json:"field"`
	Reason     string          `json:"reason"`
	Outcome    string          `json:"outcome"`
	Result     json.RawMessage `json:"result"`
}

// Service is one client of the daemon. It listens before it asks, so that no event is missed.
type Service struct {
	name   string
	conn   *nats.Conn
	events *nats.Subscription
}

// Ask submits one request and follows it to its end.
func (s *Service) Ask(op, id string, request any) (json.RawMessage, error) {
	data, err := json.Marshal(request) // []byte becomes base64, as the daemon expects it
	if err != nil {
		return nil, err
	}
	message := nats.NewMsg(fmt.Sprintf("initiator.request.%s.%s", s.name, op))
	message.Data = data
	message.Header.Set("Content-Type", "application/json")
	answer, err := s.conn.RequestMsg(message, 5*time.Second)
	if err != nil {
		// not answered is not refused: the same request again joins the operation, if there is one
		return nil, fmt.Errorf("not queued, or not known to be: %w", err)
	}
	var receipt struct {
		Seq   uint64 `json:"seq"`
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &receipt); err != nil {
		return nil, err
	}
	if receipt.Error != nil {
		return nil, fmt.Errorf("refused at the door: %s", receipt.Error.Description)
	}
	fmt.Printf("%s %s: queued", op, id)
	for {
		event, err := s.next(op, id)
		if err != nil {
			return nil, err
		}
		switch {
		case event.State == "rejected" && event.Op == op && event.RequestSeq == receipt.Seq:
			return nil, fmt.Errorf("rejected, %s: %s: %s", event.Code, event.Field, event.Reason)
		case event.Op != op || event.ID != id:
			continue
		case event.State == "failed":
			return nil, fmt.Errorf("failed, outcome %s: %s: %s", event.Outcome, event.Code, event.Reason)
		case event.State == "completed":
			fmt.Println(" completed")
			return event.Result, nil
		default:
			fmt.Printf(" %s", event.State)
		}
	}
}

// next is the next event; where none comes for a while, the state of the operation, asked for: events are told once.
func (s *Service) next(op, id string) (*Event, error) {
	var event Event
	message, err := s.events.NextMsg(5 * time.Second)
	if err == nil {
		return &event, json.Unmarshal(message.Data, &event)
	}
	question, _ := json.Marshal(map[string]string{"op": op, "id": id})
	answer, err := s.conn.Request(fmt.Sprintf("initiator.query.%s.status", s.name), question, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("still running, as far as we know: %w", err)
	}
	var status struct {
		Event *Event `json:"event"`
	}
	if err := json.Unmarshal(answer.Data, &status); err != nil || status.Event == nil {
		return &event, err
	}
	return status.Event, nil
}

func run() error {
	name := os.Getenv("ALICE_USER")
	conn, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(name, os.Getenv("ALICE_PASSWORD")))
	if err != nil {
		return err
	}
	defer conn.Close()
	events, err := conn.SubscribeSync(fmt.Sprintf("initiator.out.%s.>", name))
	if err != nil {
		return err
	}
	service := &Service{name, conn, events}

	wallet, txID := newID("w"), newID("tx")
	result, err := service.Ask("keygen", wallet, map[string]any{"wallet_id": wallet})
	if err != nil {
		return err
	}
	var keys struct {
		Eddsa []byte `json:"eddsa_pub_key"`
	}
	if err := json.Unmarshal(result, &keys); err != nil {
		return err
	}
	fmt.Println("  ed25519 public key", hex.EncodeToString(keys.Eddsa))

	tx := []byte("pay 5 to Bob")
	result, err = service.Ask("sign", txID, map[string]any{
		"key_type": "ed25519", "wallet_id": wallet, "network_internal_code": "solana", "tx_id": txID, "tx": tx,
	})
	if err != nil {
		return err
	}
	var signed struct {
		Signature []byte `json:"signature"`
	}
	if err := json.Unmarshal(result, &signed); err != nil {
		return err
	}
	if !ed25519.Verify(keys.Eddsa, tx, signed.Signature) {
		return fmt.Errorf("the signature does not verify: do not use it")
	}
	fmt.Println("  signature", hex.EncodeToString(signed.Signature), "verified")
	return nil
}

func newID(prefix string) string {
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		log.Fatal(err)
	}
	return prefix + "_" + hex.EncodeToString(random)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
