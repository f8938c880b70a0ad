package main

import (
	"crypto/tls"
	"errors"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// MQTT 3.1.1 by paho.mqtt.golang.
type session3 struct {
	client   mqtt.Client
	messages chan message
	tls      *tls.Config
}

func (s *session3) connect(step *step) (bool, error) {
	options := mqtt.NewClientOptions().
		AddBroker(step.URL).
		SetProtocolVersion(4).
		SetClientID(step.ClientID).
		SetCleanSession(!step.Persistent).
		SetKeepAlive(30 * time.Second).
		SetTLSConfig(s.tls).
		SetAutoReconnect(false).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			s.messages <- message{m.Topic(), string(m.Payload()), m.Qos(), m.Retained()}
		})
	if step.User != "" {
		options.SetUsername(step.User).SetPassword(step.Password)
	}
	if will := step.Will; will != nil {
		options.SetWill(will.Topic, will.Payload, will.QoS, will.Retain)
	}
	s.client = mqtt.NewClient(options)
	token := s.client.Connect().(*mqtt.ConnectToken)
	if err := done(token); err != nil {
		// Above 5 are the library's own, for what went wrong before CONNACK.
		if code := token.ReturnCode(); code >= 1 && code <= 5 {
			return false, refused{code}
		}
		return false, err
	}
	return token.SessionPresent(), nil
}

func (s *session3) subscribe(topic string, qos byte) (byte, error) {
	token := s.client.Subscribe(topic, qos, nil).(*mqtt.SubscribeToken)
	if err := done(token); err != nil {
		return 0, err
	}
	return token.Result()[topic], nil
}

func (s *session3) publish(m *message) error {
	return done(s.client.Publish(m.Topic, m.QoS, m.Retain, m.Payload))
}

func (s *session3) disconnect() error {
	s.client.Disconnect(100)
	return nil
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(wait) {
		return errors.New("no answer")
	}
	return token.Error()
}
