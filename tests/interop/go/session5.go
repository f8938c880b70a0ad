package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net/url"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

// MQTT 5.0 by paho.golang, through its connection manager.
type session5 struct {
	manager  *autopaho.ConnectionManager
	messages chan message
	tls      *tls.Config
}

func (s *session5) connect(step *step) (bool, error) {
	server, err := url.Parse(step.URL)
	if err != nil {
		return false, err
	}
	up := make(chan *paho.Connack, 1)
	failed := make(chan error, 1)
	config := autopaho.ClientConfig{
		ServerUrls:                    []*url.URL{server},
		TlsCfg:                        s.tls,
		KeepAlive:                     30,
		CleanStartOnInitialConnection: !step.Persistent,
		ConnectUsername:               step.User,
		ConnectPassword:               []byte(step.Password),
		OnConnectionUp:                func(_ *autopaho.ConnectionManager, connack *paho.Connack) { up <- connack },
		OnConnectionDown:              func() bool { return false },
		OnConnectError: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
		ClientConfig: paho.ClientConfig{
			ClientID: step.ClientID,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){
				func(received paho.PublishReceived) (bool, error) {
					p := received.Packet
					s.messages <- message{p.Topic, string(p.Payload), p.QoS, p.Retain}
					return true, nil
				},
			},
		},
	}
	if step.Persistent {
		config.SessionExpiryInterval = 3600
	}
	if will := step.Will; will != nil {
		config.WillMessage = &paho.WillMessage{
			Topic: will.Topic, Payload: []byte(will.Payload), QoS: will.QoS, Retain: will.Retain,
		}
	}
	// Its end would disconnect: the connection outlives this call.
	if s.manager, err = autopaho.NewConnection(context.Background(), config); err != nil {
		return false, err
	}
	select {
	case connack := <-up:
		return connack.SessionPresent, nil
	case err = <-failed:
	}
	// The manager would go on trying.
	_ = s.disconnect()
	var no *autopaho.ConnackError
	if errors.As(err, &no) {
		return false, refused{no.ReasonCode}
	}
	return false, err
}

func (s *session5) subscribe(topic string, qos byte) (byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	suback, err := s.manager.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: qos}}})
	if err != nil {
		return 0, err
	}
	return suback.Reasons[0], nil
}

func (s *session5) publish(m *message) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	_, err := s.manager.Publish(ctx, &paho.Publish{Topic: m.Topic, Payload: []byte(m.Payload), QoS: m.QoS, Retain: m.Retain})
	return err
}

func (s *session5) disconnect() error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return s.manager.Disconnect(ctx)
}
