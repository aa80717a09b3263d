package telemetry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/fleet/redis"
)

// A redisServer is as much of a Redis server as an Engine needs. It works in virtual time,
// as it is reached through pipes.
type redisServer struct {
	mu          sync.Mutex // guards what follows
	down        bool
	connections map[*connection]bool // whether it has subscribed
}

type connection struct {
	net.Conn
	out chan string // a pipe has no buffer
}

// newEngine returns an Engine that is connected to the server, until the test ends.
func (s *redisServer) newEngine(t *testing.T, opts redis.Options) *redis.Engine {
	client := goredis.NewUniversalClient(redis.ClientOptions(goredis.UniversalOptions{Dialer: s.dial}))
	engine, err := redis.New(client, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, engine.Close())
		require.NoError(t, client.Close())
	})
	return engine
}

// stop ends the server: its connections break, and there are no new ones.
func (s *redisServer) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	for c := range s.connections {
		_ = c.Close()
	}
}

func (s *redisServer) dial(context.Context, string, string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errors.New("connection refused")
	}
	if s.connections == nil {
		s.connections = map[*connection]bool{}
	}
	client, server := net.Pipe()
	c := &connection{server, make(chan string, 1000)}
	s.connections[c] = false
	go s.serve(c)
	go func() {
		for text := range c.out {
			_, _ = io.WriteString(c, text)
		}
	}()
	return client, nil
}

func (s *redisServer) serve(c *connection) {
	in := bufio.NewReader(c)
	for {
		command, err := readCommand(in)
		s.mu.Lock()
		if err != nil {
			delete(s.connections, c)
			close(c.out)
			s.mu.Unlock()
			_ = c.Close()
			return
		}
		c.out <- s.do(c, command)
		s.mu.Unlock()
	}
}

// do carries a command out and returns the reply.
func (s *redisServer) do(c *connection, command []string) string {
	switch strings.ToUpper(command[0]) {
	case "SUBSCRIBE":
		s.connections[c] = true
		return message("subscribe", command[1]) + ":1\r\n"
	case "PUBLISH":
		for subscriber, subscribed := range s.connections {
			if subscribed {
				subscriber.out <- message("message", command[1]) + bulk(command[2])
			}
		}
		return ":1\r\n"
	case "PING":
		if s.connections[c] {
			return "*2\r\n" + bulk("pong") + bulk("")
		}
		return "+PONG\r\n"
	case "SET":
		return "+OK\r\n"
	case "DEL":
		return ":0\r\n"
	case "GETRANGE":
		return bulk("")
	case "PTTL":
		return ":-2\r\n"
	}
	return "-ERR unknown command\r\n"
}

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

// message begins a message of a channel, whose third part is missing.
func message(kind, channel string) string { return "*3\r\n" + bulk(kind) + bulk(channel) }

func readCommand(in *bufio.Reader) (command []string, err error) {
	number := func(prefix string) (n int) {
		line, e := in.ReadString('\n')
		if n, err = strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, prefix))); e != nil {
			err = e
		}
		return n
	}
	words := number("*")
	for range words {
		length := number("$")
		if err != nil {
			return nil, err
		}
		word := make([]byte, length+len("\r\n"))
		if _, err = io.ReadFull(in, word); err != nil {
			return nil, err
		}
		command = append(command, string(word[:length]))
	}
	return command, err
}
