// Command upstream does to the daemon what NVSentinel's generated clients do: the upstream dialect,
// client-go's way of list-then-watch, all namespaces as "", and a list with the *old* version after the
// watch has expired.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/device-api/device-api-server/examples/go/gen/upstream"
	"github.com/device-api/device-api-server/examples/go/internal/dial"
)

// retry is how long it waits before it connects again.
const retry = 100 * time.Millisecond

func main() {
	log.SetFlags(0)
	target := flag.String("target", dial.Target(), "where the daemon listens")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	connection, err := dial.Connect(*target)
	if err != nil {
		log.Fatalf("connecting to %s: %v", *target, err)
	}
	defer connection.Close()
	client := upstream.NewGpuServiceClient(connection)

	// A string, and opaque: it is handed back, never counted with.
	version, listed := "", false
	for ctx.Err() == nil {
		if !listed {
			version, err = list(ctx, client, version)
			listed = err == nil
		}
		if listed {
			version, err = watch(ctx, client, version)
		}
		if status.Code(err) == codes.OutOfRange {
			fmt.Printf("EXPIRED version=%s\n", version)
			listed = false
			continue
		}
		fmt.Printf("ENDED %s\n", status.Code(err))
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// list answers the newest state whatever version it is asked with; after an expiry that is the old one.
func list(ctx context.Context, client upstream.GpuServiceClient, version string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dial.CallTimeout)
	defer cancel()
	answer, err := client.ListGpus(ctx, &upstream.ListGpusRequest{
		Namespace: "",
		Opts:      &upstream.ListOptions{ResourceVersion: version},
	})
	if err != nil {
		return version, err
	}
	newest := answer.GetGpuList().GetMetadata().GetResourceVersion()
	fmt.Printf("LIST version=%s gpus=%d asked=%q\n", newest, len(answer.GetGpuList().GetItems()), version)
	for _, gpu := range answer.GetGpuList().GetItems() {
		show("GPU", gpu)
	}
	return newest, nil
}

// watch follows until the stream ends, and says up to which version it got.
func watch(ctx context.Context, client upstream.GpuServiceClient, version string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fmt.Printf("WATCH after=%s\n", version)
	stream, err := client.WatchGpus(ctx, &upstream.WatchGpusRequest{
		Namespace: "",
		Opts:      &upstream.ListOptions{ResourceVersion: version},
	})
	if err != nil {
		return version, err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return version, err
		}
		switch event.GetType() {
		case "ADDED", "MODIFIED", "DELETED":
			version = event.GetObject().GetMetadata().GetResourceVersion()
			show(event.GetType(), event.GetObject())
		default:
			// As the generated client does with a type that it does not know.
		}
	}
}

// show prints one GPU on one line. This dialect has no health of its own: Ready is derived, and says it.
func show(what string, gpu *upstream.Gpu) {
	ready := "absent"
	for _, condition := range gpu.GetStatus().GetConditions() {
		if condition.GetType() == "Ready" {
			ready = condition.GetStatus()
		}
	}
	fmt.Printf("%s %s version=%s ready=%s action=%s\n", what, gpu.GetMetadata().GetName(),
		gpu.GetMetadata().GetResourceVersion(), ready, gpu.GetStatus().GetRecommendedAction())
}
