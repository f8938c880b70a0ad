// Eclipse's Go clients, paho.mqtt.golang for 3.1.1 and paho.golang for 5.0: take steps as JSON lines on standard input,
// answer each with a JSON line. See ../README.md.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// How long an answer of the server is waited for.
const wait = 20 * time.Second

type step struct {
	Op         string
	Conn       string
	Version    string
	URL        string
	ClientID   string `json:"client_id"`
	User       string
	Password   string
	Persistent bool
	CA         string
	Cert       string
	Key        string
	Will       *message
	Subscribe  []message
	message
	Count   int
	Seconds float64
}

type message struct {
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
	QoS     byte   `json:"qos"`
	Retain  bool   `json:"retain"`
}

type answer map[string]any

// What the script needs of a client of either version. Calls come back when the server has answered.
type session interface {
	connect(*step) (sessionPresent bool, err error)
	subscribe(topic string, qos byte) (granted byte, err error)
	publish(*message) error
	disconnect() error
}

// CONNACK said no.
type refused struct{ code byte }

func (r refused) Error() string { return fmt.Sprintf("refused with %d", r.code) }

type connection struct {
	session
	messages chan message
}

func tlsConfig(s *step) (*tls.Config, error) {
	if s.CA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(s.CA)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(pem)
	if s.Cert != "" {
		pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func connect(connections map[string]*connection, s *step) (answer, error) {
	config, err := tlsConfig(s)
	if err != nil {
		return nil, err
	}
	c := &connection{messages: make(chan message, 1000)}
	if s.Version == "5.0" {
		c.session = &session5{messages: c.messages, tls: config}
	} else {
		c.session = &session3{messages: c.messages, tls: config}
	}
	sessionPresent, err := c.connect(s)
	if err != nil {
		return nil, err
	}
	connections[s.Conn] = c
	granted := []int{}
	for _, filter := range s.Subscribe {
		code, err := c.subscribe(filter.Topic, filter.QoS)
		if err != nil {
			return nil, err
		}
		granted = append(granted, int(code))
	}
	return answer{"ok": true, "session_present": sessionPresent, "granted": granted}, nil
}

func (c *connection) receive(count int, seconds float64) []message {
	got := []message{}
	end := time.After(time.Duration(seconds * float64(time.Second)))
	for len(got) < count {
		select {
		case one := <-c.messages:
			got = append(got, one)
		case <-end:
			return got
		}
	}
	return got
}

func perform(connections map[string]*connection, s *step) (answer, error) {
	if s.Op == "connect" {
		return connect(connections, s)
	}
	c, known := connections[s.Conn]
	switch {
	case !known:
		return nil, errors.New("no such connection")
	case s.Op == "publish":
		return answer{"ok": true}, c.publish(&s.message)
	case s.Op == "receive":
		return answer{"ok": true, "messages": c.receive(s.Count, s.Seconds)}, nil
	default:
		delete(connections, s.Conn)
		return answer{"ok": true}, c.disconnect()
	}
}

func main() {
	connections := map[string]*connection{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var s step
		err := json.Unmarshal(in.Bytes(), &s)
		var a answer
		if err == nil {
			a, err = perform(connections, &s)
		}
		if err != nil {
			a = answer{"ok": false, "error": err.Error()}
			var no refused
			if errors.As(err, &no) {
				a["code"] = no.code
			}
		}
		if err := out.Encode(a); err != nil {
			panic(err)
		}
	}
}
