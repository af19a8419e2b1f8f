// The same job in Go: net/http, bufio.Scanner, encoding/json, nats.go.
//
// Pulls jobs, streams each from the backend, publishes every delta and an end as
// JSON on the request's subject, acknowledges. With PEER_PUBLISH=jetstream the
// events are published to a stream and awaited before the acknowledgement.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

type job struct {
	ID      string                 `json:"id"`
	Request map[string]interface{} `json:"request"`
}

type chunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
		FinishReason *string `json:"finish_reason"`
	} `json:"choices"`
	Usage json.RawMessage `json:"usage"`
}

type token struct {
	Type    string `json:"type"`
	ID      string `json:"id"`
	Seq     int    `json:"seq"`
	Attempt int    `json:"attempt"`
	Text    string `json:"text"`
}

type completed struct {
	Type         string          `json:"type"`
	ID           string          `json:"id"`
	Seq          int             `json:"seq"`
	Attempt      int             `json:"attempt"`
	FinishReason string          `json:"finish_reason"`
	Text         string          `json:"text"`
	Usage        json.RawMessage `json:"usage,omitempty"`
}

type worker struct {
	backend string
	client  *http.Client
	// The future is nil where nothing is acknowledged.
	publish func(subject string, data []byte) (nats.PubAckFuture, error)
}

func (w *worker) send(subject string, event interface{}) (nats.PubAckFuture, error) {
	data, err := json.Marshal(event)
	if err != nil {
		return nil, err
	}
	return w.publish(subject, data)
}

// Acknowledgements come in the order of the events, so the last one stands for all.
func stored(future nats.PubAckFuture) error {
	if future == nil {
		return nil
	}
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return err
	case <-time.After(30 * time.Second):
		return errors.New("the stream did not acknowledge in time")
	}
}

func (w *worker) open(request map[string]interface{}) (io.ReadCloser, error) {
	request["stream"] = true
	request["stream_options"] = map[string]bool{"include_usage": true}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	url := w.backend + "/chat/completions"
	response, err := w.client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("the backend answered %s", response.Status)
	}
	return response.Body, nil
}

func (w *worker) generate(msg *nats.Msg) error {
	var j job
	if err := json.Unmarshal(msg.Data, &j); err != nil {
		return err
	}
	body, err := w.open(j.Request)
	if err != nil {
		return err
	}
	defer body.Close()
	subject := "llm.tokens." + strings.Split(msg.Subject, ".")[2] + "." + j.ID
	end := completed{Type: "completed", ID: j.ID, Attempt: 1}
	var text strings.Builder
	scanner := bufio.NewScanner(body)
	for scanner.Scan() {
		line := scanner.Bytes()
		if !bytes.HasPrefix(line, []byte("data: ")) {
			continue
		}
		data := line[len("data: "):]
		if string(data) == "[DONE]" {
			continue // to the end of the body, so that the connection is kept
		}
		var c chunk
		if err := json.Unmarshal(data, &c); err != nil {
			return err
		}
		if len(c.Usage) > 0 {
			end.Usage = c.Usage
		}
		for _, choice := range c.Choices {
			if choice.FinishReason != nil {
				end.FinishReason = *choice.FinishReason
			}
			if choice.Delta.Content == "" {
				continue
			}
			end.Seq++
			text.WriteString(choice.Delta.Content)
			t := token{"token", j.ID, end.Seq, 1, choice.Delta.Content}
			if _, err := w.send(subject, t); err != nil {
				return err
			}
		}
	}
	if err := scanner.Err(); err != nil {
		return err
	}
	end.Seq++
	end.Text = text.String()
	future, err := w.send(subject, end)
	if err != nil {
		return err
	}
	if err := stored(future); err != nil {
		return err
	}
	return msg.Ack()
}

func setting(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func main() {
	nc, err := nats.Connect(setting("TOKENBRIDGE_NATS_URL", nats.DefaultURL))
	if err != nil {
		log.Fatal(err)
	}
	js, err := nc.JetStream(nats.PublishAsyncMaxPending(4000))
	if err != nil {
		log.Fatal(err)
	}
	slots, err := strconv.Atoi(setting("TOKENBRIDGE_SLOTS", "64"))
	if err != nil {
		log.Fatal(err)
	}
	w := &worker{
		backend: setting("TOKENBRIDGE_BACKEND_URL", "http://127.0.0.1:8000/v1"),
		client:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: slots}},
		publish: func(subject string, data []byte) (nats.PubAckFuture, error) {
			return nil, nc.Publish(subject, data)
		},
	}
	if os.Getenv("PEER_PUBLISH") == "jetstream" {
		w.publish = func(subject string, data []byte) (nats.PubAckFuture, error) {
			return js.PublishAsync(subject, data)
		}
	}
	jobs, err := js.PullSubscribe("llm.jobs.*.default", "peer",
		nats.AckWait(2*time.Minute), nats.MaxAckPending(10000))
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	go func() {
		address := "127.0.0.1:" + setting("TOKENBRIDGE_HTTP_PORT", "8088")
		log.Fatal(http.ListenAndServe(address, nil))
	}()
	free := make(chan struct{}, slots)
	for {
		free <- struct{}{}
		msgs, err := jobs.Fetch(1, nats.MaxWait(time.Second))
		if err != nil || len(msgs) == 0 {
			if err != nil && !errors.Is(err, nats.ErrTimeout) {
				log.Println(err)
			}
			<-free
			continue
		}
		go func(msg *nats.Msg) {
			defer func() { <-free }()
			if err := w.generate(msg); err != nil {
				log.Println(err)
			}
		}(msgs[0])
	}
}
