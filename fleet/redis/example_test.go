package redis_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"log/slog"

	goredis "github.com/redis/go-redis/v9"

	"github.com/spillover-go/spillover/fleet/redis"
)

// A server with a URL. The Engine is the Fleet of a spillover.Config.
func Example() {
	engine, err := redis.Open("rediss://:password@redis.example.com:6380", redis.Options{
		Group:  "chat",
		Logger: slog.Default(),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()

	cancel := engine.Subscribe(func(notice []byte) { fmt.Printf("%s\n", notice) })
	defer cancel()
	engine.Publish([]byte(`{"v":1,"k":"throttled","p":"00112233aabbccdd","f":"0123abcd","l":4000}`))
}

// Azure Managed Redis with Microsoft Entra ID. The user name is the object ID of the
// identity. entraToken is a spillover.TokenFunc of package entra, with the scope of
// Redis:
//
//	entraToken := entra.Token(credential, "https://redis.azure.com/.default")
//
// It caches the token and renews it in time. The server closes a connection whose token
// has expired, and the Engine connects again, with the new one. A
// StreamingCredentialsProvider, such as that of go-redis-entraid, avoids this.
func ExampleNew_azureManagedRedis() {
	var entraToken func(context.Context) (string, error)

	client := goredis.NewUniversalClient(redis.ClientOptions(goredis.UniversalOptions{
		Addrs:     []string{"fleet.westeurope.redis.azure.net:10000"},
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		CredentialsProviderContext: func(ctx context.Context) (user, password string, err error) {
			token, err := entraToken(ctx)
			return "00000000-0000-0000-0000-000000000000", token, err
		},
	}))
	defer client.Close()
	engine, err := redis.New(client, redis.Options{Group: "chat"})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
}

// Three Sentinels, which know the current master.
func ExampleNew_sentinel() {
	client := goredis.NewUniversalClient(redis.ClientOptions(goredis.UniversalOptions{
		Addrs:      []string{"sentinel-0:26379", "sentinel-1:26379", "sentinel-2:26379"},
		MasterName: "main",
		Password:   "password",
	}))
	defer client.Close()
	engine, err := redis.New(client, redis.Options{Group: "chat"})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
}

// A cluster. Azure Managed Redis is one if its clustering policy is OSS.
func ExampleNew_cluster() {
	client := goredis.NewUniversalClient(redis.ClientOptions(goredis.UniversalOptions{
		Addrs:         []string{"redis-0:6379", "redis-1:6379", "redis-2:6379"},
		IsClusterMode: true,
	}))
	defer client.Close()
	engine, err := redis.New(client, redis.Options{Group: "chat"})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
}
